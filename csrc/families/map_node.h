// The node of an element-wise op, and one call of it as its derivative sees it. Between map.cpp (calls), map_node.cpp
// (forward, pull) and map_keep.cpp (what is kept).
#pragma once
#include "families/map.h"

namespace pb {

struct MapCall {
  const MapOp& op;
  int n;
  bool from_y = false;  // of two pulls, the one that reads the output
  Shape out_shape;
  DType out_dtype;
  Device device;
  double params[kMaxArgs];
  RandomState random;

  MapCall(const MapOp& o, int inputs, const Tensor& out, const double* constants, const RandomState& state)
      : op(o), n(inputs), out_shape(out.shape()), out_dtype(out.dtype()), device(out.device()), random(state) {
    for (int i = 0; i < op.nargs; i++) params[i] = constants[i];
  }
  // The inputs that the pull by input i reads, as bits; bit 7: the output.
  unsigned reads(int i) const { return from_y ? 128u : op.uses[i]; }
  // g times the derivative by input i, of the output's shape, in one kernel; outside the graph.
  Tensor fused_pull(int i, DType result, const Tensor& g, const Tensor* x, const Tensor& y) const;

 private:
  bool pull_short(int i, const Tensor& r, const Tensor& g, const Tensor* x, const Tensor& y) const;
};

struct MapNode final : Node, MapCall, alloc::Recycled<MapNode> {
  Saved in[kMaxInputs];
  Saved out;
  Shape shapes[kMaxInputs];  // only of inputs that were broadcast
  unsigned broadcast = 0;    // bit i: input i was
  uint32_t own_version = 0;  // of the own output, while another tensor stands for it
  bool near = false;         // the output was asked for where the input would be exact
  DType dtypes[kMaxInputs];

  using MapCall::MapCall;
  const char* name() const override { return op.name.data(); }
  void release() override;
  void visit_saved(const VisitKept& f) const override;
  void output_pushed(const Tensor& y) override { out.take_tangents(y); }
  void pull(const PullArgs& a) override;
  Tensor rebuild() override;
  void output_kept(const Tensor& z) override;
  void consumed(const Tensor& y) override;
  bool stand_in(const Tensor& z) override;

  const Shape& shape_of(int i) const { return broadcast >> i & 1 ? shapes[i] : out_shape; }

 private:
  Tensor graph_pull(int i, const Tensor& g, Tensor* x, const Tensor& y);
};

// out = op(in...) on memory, outside the graph.
void run_forward(const MapOp& op, const Tensor& out, std::span<const Tensor> in, Compute compute, const double* params,
                 const RandomState* random);
// Fills the slots of a node whose op has more to keep than the inputs that its pull reads; `used` are those.
void keep_specially(MapNode& node, std::span<const Tensor> in, const Tensor& out, unsigned used, const Saving& s);
// The call with a code of the derivative, if that is chosen and there is one (CodeCall).
bool map_code_call(const MapOp& op, std::span<const Tensor> in, const Tensor& out, const double* params,
                   const Saving& s);
// The bits of the inputs that a call of these constants keeps by itself, and bit 7 for its output.
unsigned reads_of(const MapOp& op, int i, DType out, const double* params);

}  // namespace pb
