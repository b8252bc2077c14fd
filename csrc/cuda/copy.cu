// Copies between strided windows with a cast on the way, and fills. Values go through the compute type of the source.
#include "cuda/api_copy.h"
#include "cuda/device.h"

namespace pb::cuda {

int pack(const PackArgs& args, void* stream);  // pack.cu
int unpack(const PackArgs& args, void* stream);

namespace {

// Offsets of element i of the window in both operands. 32-bit division where the window allows it.
template <class Index>
PB_DEVICE void places(const CopyArgs& a, Index i, int64_t& out, int64_t& in) {
  out = in = 0;
#pragma unroll 1
  for (int d = a.ndim; d-- > 0;) {
    Index size = Index(a.shape[d]), q = i / size, r = i - q * size;
    out += int64_t(r) * a.out_strides[d];
    in += int64_t(r) * a.in_strides[d];
    i = q;
  }
}

template <class S>
PB_DEVICE S load_as(const void* p, Type t, int64_t i) {
  switch (t) {
    case Type::Bool:
      return S(static_cast<const uint8_t*>(p)[i] != 0);
    case Type::I8:
      return S(static_cast<const int8_t*>(p)[i]);
    case Type::I16:
      return S(static_cast<const int16_t*>(p)[i]);
    case Type::I32:
      return S(static_cast<const int32_t*>(p)[i]);
    case Type::I64:
      return S(static_cast<const int64_t*>(p)[i]);
    case Type::U8:
      return S(static_cast<const uint8_t*>(p)[i]);
    case Type::U16:
      return S(static_cast<const uint16_t*>(p)[i]);
    case Type::U32:
      return S(static_cast<const uint32_t*>(p)[i]);
    case Type::U64:
      return S(static_cast<const uint64_t*>(p)[i]);
    case Type::F32:
      return S(static_cast<const float*>(p)[i]);
    case Type::F64:
      return S(static_cast<const double*>(p)[i]);
    default:
      return S(widen(static_cast<const uint16_t*>(p)[i], t));
  }
}

// An integer type narrower than 64 bits keeps the low bits, as on the CPU.
template <class T, class S>
PB_DEVICE T integer_of(S v) {
  if constexpr (std::is_floating_point_v<S>)
    return sizeof(T) < 8 ? T(int64_t(v)) : T(v);
  else
    return T(v);
}
template <class S>
PB_DEVICE void store_as(void* p, Type t, int64_t i, S v) {
  switch (t) {
    case Type::Bool:
      static_cast<uint8_t*>(p)[i] = v != S(0);
      break;
    case Type::I8:
      static_cast<int8_t*>(p)[i] = integer_of<int8_t>(v);
      break;
    case Type::I16:
      static_cast<int16_t*>(p)[i] = integer_of<int16_t>(v);
      break;
    case Type::I32:
      static_cast<int32_t*>(p)[i] = integer_of<int32_t>(v);
      break;
    case Type::I64:
      static_cast<int64_t*>(p)[i] = integer_of<int64_t>(v);
      break;
    case Type::U8:
      static_cast<uint8_t*>(p)[i] = integer_of<uint8_t>(v);
      break;
    case Type::U16:
      static_cast<uint16_t*>(p)[i] = integer_of<uint16_t>(v);
      break;
    case Type::U32:
      static_cast<uint32_t*>(p)[i] = integer_of<uint32_t>(v);
      break;
    case Type::U64:
      static_cast<uint64_t*>(p)[i] = integer_of<uint64_t>(v);
      break;
    case Type::F32:
      static_cast<float*>(p)[i] = float(v);
      break;
    case Type::F64:
      static_cast<double*>(p)[i] = double(v);
      break;
    default:
      static_cast<uint16_t*>(p)[i] = narrow(float(v), t);
  }
}

PB_DEVICE int64_t first_of_thread() { return int64_t(blockIdx.x) * kThreads + threadIdx.x; }
PB_DEVICE int64_t threads() { return int64_t(gridDim.x) * kThreads; }

// S: the compute type of the source.
template <class S, class Index>
__global__ void __launch_bounds__(kThreads) cast_kernel(const __grid_constant__ CopyArgs a) {
#pragma unroll 1
  for (int64_t i = first_of_thread(); i < a.n; i += threads()) {
    int64_t out = i, in = i;
    if (!a.contiguous) places<Index>(a, Index(i), out, in);
    store_as<S>(a.out, a.out_type, out, load_as<S>(a.in, a.in_type, in));
  }
}

// Between float32 and 16-bit floats, eight neighbours a thread.
__global__ void __launch_bounds__(kThreads) cast_float_kernel(const __grid_constant__ CopyArgs a) {
  int64_t whole = a.n / kVec;
#pragma unroll 1
  for (int64_t i = first_of_thread(); i < whole; i += threads()) {
    float v[kVec];
    vector_load(a.in, a.in_type, i * kVec, v);
    vector_store(a.out, a.out_type, i * kVec, v);
  }
#pragma unroll 1
  for (int64_t i = whole * kVec + first_of_thread(); i < a.n; i += threads())
    store_one(a.out, a.out_type, i, load_one(a.in, a.in_type, i));
}

// Elements of one type, as words.
template <class Word, class Index>
__global__ void __launch_bounds__(kThreads) move_kernel(const __grid_constant__ CopyArgs a) {
#pragma unroll 1
  for (int64_t i = first_of_thread(); i < a.n; i += threads()) {
    int64_t out, in;
    places<Index>(a, Index(i), out, in);
    static_cast<Word*>(a.out)[out] = static_cast<const Word*>(a.in)[in];
  }
}

template <class Word>
__global__ void __launch_bounds__(kThreads) fill_kernel(const __grid_constant__ FillArgs a) {
  Word v = Word(a.bits);
#pragma unroll 1
  for (int64_t i = first_of_thread(); i < a.n; i += threads()) {
    int64_t at = i;
    if (!a.contiguous) {
      at = 0;
      int64_t rest = i;
#pragma unroll 1
      for (int d = a.ndim; d-- > 0;) {
        int64_t q = rest / a.shape[d];
        at += (rest - q * a.shape[d]) * a.strides[d];
        rest = q;
      }
    }
    static_cast<Word*>(a.out)[at] = v;
  }
}

template <class S>
Kernel cast_for(const CopyArgs& a) {
  return a.n <= INT32_MAX ? reinterpret_cast<Kernel>(&cast_kernel<S, uint32_t>)
                          : reinterpret_cast<Kernel>(&cast_kernel<S, int64_t>);
}
template <class Word>
Kernel move_for(const CopyArgs& a) {
  return a.n <= INT32_MAX ? reinterpret_cast<Kernel>(&move_kernel<Word, uint32_t>)
                          : reinterpret_cast<Kernel>(&move_kernel<Word, int64_t>);
}
Kernel kernel_for(const CopyArgs& a) {
  if (a.in_type == a.out_type) switch (itemsize(a.in_type)) {
      case 1:
        return move_for<uint8_t>(a);
      case 2:
        return move_for<uint16_t>(a);
      case 4:
        return move_for<uint32_t>(a);
      default:
        return move_for<uint64_t>(a);
    }
  switch (compute_of(a.in_type)) {
    case Compute::F32:
      return cast_for<float>(a);
    case Compute::F64:
      return cast_for<double>(a);
    case Compute::I64:
      return cast_for<int64_t>(a);
    default:
      return cast_for<uint64_t>(a);
  }
}

unsigned blocks_for(int64_t threads_wanted) {
  int64_t blocks = (threads_wanted + kThreads - 1) / kThreads;
  return unsigned(blocks < 65535 ? blocks : 65535);
}

int copy(const CopyArgs& a, void* stream) {
  if (a.n == 0) return cudaSuccess;
  bool floats = compute_of(a.in_type) == Compute::F32 && is_float(a.out_type) && a.out_type != Type::F64;
  if (a.contiguous && floats && a.in_type != a.out_type)
    return launch(reinterpret_cast<Kernel>(&cast_float_kernel), dim3(blocks_for(a.n / kVec + 1)), dim3(kThreads),
                  stream, a);
  return launch(kernel_for(a), dim3(blocks_for(a.n)), dim3(kThreads), stream, a);
}

int fill(const FillArgs& a, void* stream) {
  if (a.n == 0) return cudaSuccess;
  Kernel k = a.item == 1   ? reinterpret_cast<Kernel>(&fill_kernel<uint8_t>)
             : a.item == 2 ? reinterpret_cast<Kernel>(&fill_kernel<uint16_t>)
             : a.item == 4 ? reinterpret_cast<Kernel>(&fill_kernel<uint32_t>)
                           : reinterpret_cast<Kernel>(&fill_kernel<uint64_t>);
  return launch(k, dim3(blocks_for(a.n)), dim3(kThreads), stream, a);
}

}  // namespace

const CopyApi* copy_api() {
  static const CopyApi api = {.copy = &copy, .fill = &fill, .pack = &pack, .unpack = &unpack};
  return &api;
}

}  // namespace pb::cuda
