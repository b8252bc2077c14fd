// Writing by index. Sums into repeated places run in the order of the indices, as on the CPU: where a place's terms lie
// along one line a thread walks the line, else the terms are sorted by place and the first of each place adds them up.
// Nothing is added atomically, so the bits are the same in every run. Of several writes to a place the last wins, which
// the largest position finds, whatever the order of the threads.
#include "cuda/api_gather.h"
#include "cuda/fault.h"
#include "cuda/order.h"
#include "cuda/row_lanes.h"

namespace pb::cuda {

namespace {

// How values of a type are read, added and written.
template <class T>
struct Plain {
  using Sum = T;
  PB_DEVICE static T load(const AddArgs& a, int64_t i) { return static_cast<const T*>(a.x)[i]; }
  PB_DEVICE static void store(const AddArgs& a, int64_t i, T v) { static_cast<T*>(a.out)[i] = v; }
};
struct Half {
  using Sum = float;
  PB_DEVICE static float load(const AddArgs& a, int64_t i) {
    return widen(static_cast<const uint16_t*>(a.x)[i], a.type);
  }
  PB_DEVICE static void store(const AddArgs& a, int64_t i, float v) {
    static_cast<uint16_t*>(a.out)[i] = narrow(v, a.type);
  }
};

struct SortedArgs {
  AddArgs a;
  PairArgs p;
};

// Pairs of a place and a position.
__global__ void __launch_bounds__(kThreads) place_kernel(const __grid_constant__ SortedArgs s) {
  const AddArgs& a = s.a;
  int64_t count = a.along ? a.outer * a.m * a.inner : a.m;
  each_index(s.p.padded, [&](int64_t t) {
    uint64_t key = ~uint64_t(0);
    if (t < count) {
      int64_t at = a.index[t];
      if (a.along) at = (t / (a.m * a.inner) * a.n + at) * a.inner + t % a.inner;
      key = uint64_t(at);
    }
    s.p.key[t] = key;
    s.p.index[t] = t;
  });
}

// The first pair of a place adds all of them; others have nothing to do.
template <class V>
__global__ void __launch_bounds__(kThreads) sorted_kernel(const __grid_constant__ SortedArgs s) {
  const AddArgs& a = s.a;
  const uint64_t* key = s.p.key;
  each_index(a.outer * a.m * a.inner, [&](int64_t t) {
    int64_t row = t / a.inner, i = t - row * a.inner, o = row / a.m, j = row - o * a.m;
    uint64_t place = key[j];
    if (j > 0 && key[j - 1] == place) return;
    typename V::Sum sum(0);
#pragma unroll 1
    for (; j < a.m && key[j] == place; j++)
      sum = typename V::Sum(sum + V::load(a, (o * a.m + s.p.index[j]) * a.inner + i));
    V::store(a, (o * a.n + int64_t(place)) * a.inner + i, sum);
  });
}

// One line of [outer, ., inner] a thread.
template <class V>
__global__ void __launch_bounds__(kThreads) line_kernel(const __grid_constant__ AddArgs a) {
  each_index(a.outer * a.inner, [&](int64_t t) {
    int64_t o = t / a.inner, i = t - o * a.inner;
    auto* out = static_cast<typename V::Sum*>(a.out);
#pragma unroll 1
    for (int64_t j = 0; j < a.m; j++) {
      int64_t from = (o * a.m + j) * a.inner + i;
      auto& sum = out[(o * a.n + a.index[from]) * a.inner + i];
      sum = typename V::Sum(sum + V::load(a, from));
    }
  });
}

struct AddKernels {
  Kernel sorted, line;
};
template <class V>
AddKernels kernels_of() {
  return {reinterpret_cast<Kernel>(&sorted_kernel<V>), reinterpret_cast<Kernel>(&line_kernel<V>)};
}
AddKernels kernels_of(Type t) {
  if (t == Type::F32) return kernels_of<Plain<float>>();
  if (t == Type::F64) return kernels_of<Plain<double>>();
  if (t == Type::F16 || t == Type::BF16) return {reinterpret_cast<Kernel>(&sorted_kernel<Half>), nullptr};
  switch (itemsize(t)) {
    case 1:
      return kernels_of<Plain<uint8_t>>();
    case 2:
      return kernels_of<Plain<uint16_t>>();
    case 4:
      return kernels_of<Plain<uint32_t>>();
    default:
      return kernels_of<Plain<uint64_t>>();
  }
}

// Lines that are many, or short, go a thread each. Sums of 16-bit floats need the order.
bool by_lines(const AddArgs& a) {
  bool half = a.type == Type::F16 || a.type == Type::BF16;
  return a.along && !half && (a.outer * a.inner >= 1024 || a.m <= 32);
}
int64_t pairs(const AddArgs& a) { return padded_size(a.along ? a.outer * a.m * a.inner : a.m); }

// ---- writes

__global__ void __launch_bounds__(kThreads) mark_kernel(const __grid_constant__ PutArgs a) {
  each_index(a.m, [&](int64_t j) {
    atomicMax(reinterpret_cast<unsigned long long*>(a.latest) + a.index[j], static_cast<unsigned long long>(j + 1));
  });
}
PB_DEVICE bool is_last(const PutArgs& a, int64_t j) { return a.latest[a.index[j]] == j + 1; }

__global__ void __launch_bounds__(kThreads) winner_kernel(const __grid_constant__ PutArgs a) {
  each_index(a.m, [&](int64_t j) { a.last[j] = is_last(a, j); });
}
template <class T>
__global__ void __launch_bounds__(kThreads) put_kernel(const __grid_constant__ PutArgs a) {
  const int64_t units = a.inner;
  each_index(a.outer * a.m * units, [&](int64_t i) {
    int64_t row = i / units, unit = i - row * units, o = row / a.m, j = row - o * a.m;
    if (is_last(a, j)) static_cast<T*>(a.out)[(o * a.n + a.index[j]) * units + unit] = static_cast<const T*>(a.x)[i];
  });
}
Kernel put_of(int bytes) {
  return bytes == 1   ? reinterpret_cast<Kernel>(&put_kernel<uint8_t>)
         : bytes == 2 ? reinterpret_cast<Kernel>(&put_kernel<uint16_t>)
         : bytes == 4 ? reinterpret_cast<Kernel>(&put_kernel<uint32_t>)
         : bytes == 8 ? reinterpret_cast<Kernel>(&put_kernel<uint64_t>)
                      : reinterpret_cast<Kernel>(&put_kernel<uint4>);
}

cudaError_t mark(const PutArgs& a, void* stream) {
  cudaError_t e = cudaMemsetAsync(a.latest, 0, size_t(a.n) * sizeof(int64_t), static_cast<cudaStream_t>(stream));
  if (e != cudaSuccess) return e;
  return launch(reinterpret_cast<Kernel>(&mark_kernel), dim3(blocks_for(a.m)), dim3(kThreads), stream, a);
}

}  // namespace

int64_t add_scratch(const AddArgs& a) { return by_lines(a) ? 0 : 16 * pairs(a); }

int add(const AddArgs& args, void* stream) {
  if (args.outer * args.m * args.inner == 0) return cudaSuccess;
  AddKernels kernels = kernels_of(args.type);
  if (by_lines(args))
    return launch(kernels.line, dim3(blocks_for(args.outer * args.inner)), dim3(kThreads), stream, args);
  SortedArgs s{args, {}};
  s.p.rows = 1;
  s.p.padded = pairs(args);
  s.p.key = static_cast<uint64_t*>(args.partial);
  s.p.index = reinterpret_cast<int64_t*>(s.p.key + s.p.padded);
  cudaError_t e =
      launch(reinterpret_cast<Kernel>(&place_kernel), dim3(blocks_for(s.p.padded)), dim3(kThreads), stream, s);
  if (e == cudaSuccess) e = sort_pairs(s.p, stream);
  if (e != cudaSuccess) return e;
  if (args.along) {  // places are those of elements
    s.a.m = args.outer * args.m * args.inner;
    s.a.outer = s.a.inner = 1;
  }
  return launch(kernels.sorted, dim3(blocks_for(s.a.outer * s.a.m * s.a.inner)), dim3(kThreads), stream, s);
}

int put(const PutArgs& args, void* stream) {
  if (args.outer * args.m * args.inner == 0) return cudaSuccess;
  cudaError_t e = mark(args, stream);
  if (e != cudaSuccess) return e;
  PutArgs a = args;
  // The widest unit that divides a row and both addresses.
  uint64_t all = uint64_t(a.inner * a.item) | reinterpret_cast<uintptr_t>(a.x) | reinterpret_cast<uintptr_t>(a.out);
  int unit = 16;
  while (all % unsigned(unit)) unit /= 2;
  a.inner = a.inner * a.item / unit;
  return launch(put_of(unit), dim3(blocks_for(a.outer * a.m * a.inner)), dim3(kThreads), stream, a);
}

int winners(const PutArgs& args, void* stream) {
  if (args.m == 0) return cudaSuccess;
  cudaError_t e = mark(args, stream);
  if (e != cudaSuccess) return e;
  return launch(reinterpret_cast<Kernel>(&winner_kernel), dim3(blocks_for(args.m)), dim3(kThreads), stream, args);
}

}  // namespace pb::cuda
