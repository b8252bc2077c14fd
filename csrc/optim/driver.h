// The optimizer driver: one call steps every tensor of every group, whatever the rule.
//
// Note [The table of a step]
// Tensors are cut into chunks of at most kChunk elements; the table of tensors and chunks persists and is rebuilt only
// when a parameter, its memory or its rule changes. A step is at most two parallel passes over it: `read` (for
// clip_norm, scale and rules that need sums over whole tensors: reads g, and what the sums are of) and `update` (reads
// p, g, states; writes p, states). The sums are formed as if clip_norm did not bite; where it does, and the sums are
// not homogeneous in g, they are formed once more. Chunks and the sums over them depend on shapes alone, and the sums
// of tensors are added in sorted order, so that the bits of a result depend neither on the number of threads nor on the
// grouping. A step allocates nothing once its states exist.
//
// Note [Update in backward]
// A rule that looks at one tensor at a time may step each as soon as its gradient is complete, while that is in the
// cache, so that no two gradients need exist at once. The table is made of all parameters without their gradients;
// `update` then runs the passes over the chunks of one of them. The bits are those of the whole step.
//
// Note [Tiles]
// A pass goes through a chunk in tiles of kTile elements. What lies in memory contiguous and in the compute type is
// used where it is; everything else (16-bit and strided tensors, narrow states) is read into a tile that stays in L1
// and written back from there.
#pragma once
#include <span>
#include <unordered_map>
#include <vector>

#include "cpu/optim_table.h"
#include "optim/formats.h"
#include "optim/registry.h"

namespace pb::cuda {
struct OptimTable;  // cuda/optim_call.h
struct OptimArgs;
struct OptimReplay;  // cuda/capture.h
}  // namespace pb::cuda

namespace pb::optim {

inline constexpr int64_t kChunk = 16384;  // elements that one thread takes at once: 64 KiB a float32 stream

// What one parameter keeps between steps.
struct State {
  Tensor param;
  int64_t t = 0;  // steps taken
  Slot slots[kMaxSlots];
  Tensor rest;  // of the rounding: compensation or master copy
  double scalars[kMaxScalars] = {};
};

struct StepOptions {
  double clip_norm = -1, clip_value = -1;  // negative: off
  double scale = 1;                        // gradients are divided by it
  bool measure = false;                    // norm and finite check
};

// What follows the update. Threshold and Box act on elements; Ball and Shrink scale a tensor by its norm |p|:
// min(1, a / |p|) and max(0, 1 - lr a / |p|).
enum class Prox : uint8_t { None, Threshold, Box, Ball, Shrink };

struct GroupOptions {
  double weight_decay = 0;
  bool decoupled = false;
  Prox prox = Prox::None;
  double a = 0, b = 0;  // of prox
  Format state = Format::Exact;
  Rounding rounding = Rounding::Nearest;
};

struct StepResult {
  double norm = 0;       // of the gradients divided by scale, before clipping; only with `measure`
  bool skipped = false;  // a gradient was not finite: nothing changed
};

class Driver {
 public:
  // A step: begin, then for each group `group` and its tensors in order, then prepare, execute, commit.
  // An undefined g leaves p as it is. With an origin the step starts from its values and still writes p.
  void begin();
  void group(const RuleRow& rule, const double* hyper, const GroupOptions& options);
  void add(const Tensor& p, const Tensor& g, const Tensor& origin = Tensor());
  void prepare(const StepOptions& options);
  void execute();  // touches no handle: may run without the interpreter lock, where the tensors lie on the CPU
  Device device() const { return device_; }
  // The next step of a captured one: begin, the groups, replay; the caller launches. False: it must be captured anew.
  bool replay(cuda::OptimReplay& r);
  StepResult replay_result(cuda::OptimReplay& r);  // waits for the step
  StepResult commit();
  void release_gradients();

  // In parts: begin, groups and tensors without gradients, prepare_parts, then `update` for a tensor of the table, by
  // its place, once for each that has a gradient. For options without `measure` and rules without sums of Scope::Model.
  void prepare_parts(const StepOptions& options);
  void update(size_t place, const Tensor& g);

  const State* find(const Tensor& p) const;
  State& state(const Tensor& p);
  void forget(const Tensor& p) {
    states_.erase(p.impl());
    changed_ = true;
  }

 private:
  struct Group {
    const RuleRow* rule;
    double hyper[kMaxHyper];
    double decay;
    Decay mode;
    Prox prox;
    double a, b;  // of prox; a times lr where the step size matters
    Format state;
    Rounding rounding;
    int64_t t;    // of the last prepared Step
    size_t step;  // its place in steps_
  };
  struct Memory {  // of one slot
    void* data;
    float* scales;
    Format format;
    int size;  // of an element
  };
  struct Entry {
    Tensor p, g, origin;
    State* state;
    const RuleRow* rule;
    void* address;
    int64_t n;
    DType compute;
    bool direct_p, direct_g, active;
    bool narrow;  // some slot is staged
    bool summed;  // no further pass for the sums
    size_t group, step;
    size_t chunk;  // the first
    size_t chunks;
    Memory slots[kMaxSlots];
    Rounding rounding;            // in effect for this type
    double scalars[kMaxScalars];  // those of the state, moved on; written back by commit
    double sums[kMaxSums];
  };
  struct Chunk {
    size_t entry;
    int64_t begin, n;
    int64_t at;  // elements before it in the table
  };
  struct Block {
    double v[kMaxStep];
  };

  bool same(const Entry& e, const Tensor& p) const;
  // On a device (cuda/optim_call.cpp).
  void execute_device();
  void check_device_entry(const Entry& e) const;
  bool in_range(const Entry& e) const;
  void fill_device_table(std::vector<Tensor>& noise);
  void upload_steps();
  void note_replay();
  void device_sums(const cuda::OptimArgs& base);

  void settle(const StepOptions& options);
  void rebuild();
  void prepare_entry(Entry& e);
  void prepare_memory(Entry& e);
  void advance_state(Entry& e);
  double norm();
  void read_chunk(size_t c);
  void sum_chunk(size_t c);
  bool adjust_sums(double factor);
  void add_sums();
  void* load_parameter(const Entry& e, int64_t begin, int64_t n) const;
  void store_parameter(const Entry& e, int64_t begin, int64_t n, void* p, RoundKey key) const;
  void* load_slot(const Entry& e, int j, int64_t begin, int64_t n) const;
  RoundKey key(const Chunk& k, const Entry& e, int stream) const;
  void store_slot(const Entry& e, int j, int64_t begin, int64_t n, void* tile, RoundKey key) const;
  void* load_gradient(const Entry& e, int64_t begin, int64_t n) const;
  template <class F>
  void visit(const Chunk& k, const Entry& e, bool write, F f);
  void update_chunk(size_t c);
  void scale_chunk(size_t c);
  template <void (Driver::*F)(size_t)>
  static void pass(void* self, int64_t begin, int64_t end);

  std::unordered_map<TensorImpl*, State> states_;
  std::vector<Group> groups_;
  std::vector<Entry> entries_;
  std::vector<Chunk> chunks_;
  std::vector<Block> steps_;
  std::vector<double> sums_;    // of squares, by chunk
  std::vector<double> parts_;   // of the rule's sums, by chunk
  std::vector<double> totals_;  // of squares, by tensor
  Device device_;               // of the parameters that have a gradient
  std::shared_ptr<cuda::OptimTable> device_table_;
  size_t cursor_ = 0;
  int64_t elements_ = 0;             // of the table
  int64_t first_ = 0, running_ = 0;  // the elements that a pass runs over
  bool changed_ = true;
  bool finite_ = true, needs_sums_ = false, needs_norms_ = false;
  double multiplier_ = 1;
  StepOptions options_;
  StepResult result_;
};

void check_parameter(const Tensor& p);  // throws what makes p unfit for training

// The normal numbers that a rule with noise meets at step t.
Tensor normal_like(const Tensor& p, uint64_t seed, uint64_t t);

// sqrt of the sum of squares of all tensors, as the driver adds them.
double global_norm(std::span<const Tensor> tensors, bool* finite);

}  // namespace pb::optim
