// New element-wise ops from outside the package: one struct, registered in one call.
//
//   #include <extend/op.h>
//
//   namespace pb::mine {
//   struct Cube : Map<1> {
//     static constexpr std::string_view name = "cube", doc = "x * x * x.";
//     template <Value V> PB_FN static V fwd(V x) { return x * x * x; }
//   };
//   }  // namespace pb::mine
//
//   NB_MODULE(mine, m) { pb::extend::add_op<pb::mine::Cube>(); }
//
// After the import of that module `pb.op("cube")` is the Python callable, with derivatives of every order and both
// modes. families/op.h says what the struct may contain. It stands in a namespace inside pb, so that exp(x) with
// V = float finds the primitive of value/value.h and not the C library's function.
//
// The kernels are built with the flags of the extension: PULLBACK_KERNEL_FLAGS of the CMake config are those of the
// package's own kernels, without an instruction set.
#pragma once
#include "cpu/isa_std.h"
// Kernels before rows: value/value.h declares the primitives that formulas look up.
#include "cpu/map_kernels.h"
#include "families/map_row.h"

namespace pb::extend {

// A number that changes with the layouts that an extension and the engine share.
inline constexpr uint64_t kLayout =
    (((uint64_t(2) * 4096 + sizeof(MapOp)) * 4096 + sizeof(MapKernels)) * 4096 + sizeof(TensorImpl)) * 4096 +
    sizeof(Storage);

// Registers a row that was built with headers of layout `layout`; ValueError when the engine's differs.
void add_row(const MapOp& row, uint64_t layout);

template <class Op>
void add_op(uint64_t layout = kLayout) {
  static constexpr MapKernels kernels = map_kernels<Op>();
  MapOp row = map_row_of<Op>("extension");
  row.kernels = &kernels;
  add_row(row, layout);
}

}  // namespace pb::extend
