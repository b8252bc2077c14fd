// What kernels call: indices, barriers, warp functions, atomics, arithmetic. Functions that make a thread wait take the
// place of the call as a last argument of their own, so that errors can name it.
#pragma once
#include <bit>
#include <functional>
#include <source_location>
#include <type_traits>

#include "emulator/vector_types.h"

// Set by the scheduler whenever another thread or block goes on.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace emulator {

using Place = std::source_location;

struct SharedKey {
  const char* name;
  const char* file;
  int line;
  size_t size, align;
};
void* shared(const SharedKey& key);
void* dynamic_shared(size_t align);

enum class Vote : unsigned char { None, Any, All, Count };
int barrier(Vote vote, bool mine, const Place& at);

// Every lane that `mask` names hands in a value; each gets the answer of its own question.
enum class Exchange : unsigned char { Sync, Ballot, Shuffle, Add, Min, Max, And, Or, Xor, Match };
uint64_t exchange(Exchange kind, unsigned mask, uint64_t value, int source, const Place& at);
unsigned lane();
unsigned active_lanes();
[[noreturn]] void trap(const char* text, const Place& at);

cudaError_t launch(const cudaLaunchConfig_t& config, const void* kernel, std::function<void()> call);

template <class T>
uint64_t pack(T v) {
  static_assert(sizeof v <= 8);
  uint64_t u = 0;
  std::memcpy(&u, &v, sizeof v);
  return u;
}
template <class T>
T unpack(uint64_t u) {
  T v;
  std::memcpy(&v, &u, sizeof v);
  return v;
}

// The value of lane `source` of the caller's segment of `width` lanes, or the own one where that lies outside.
template <class T>
T shuffle(unsigned mask, T v, int source, bool inside, const Place& at) {
  int from = inside ? source : int(lane());
  return unpack<T>(exchange(Exchange::Shuffle, mask, pack(v), from, at));
}

// Threads of one operating system thread never interrupt each other, but the race detector has to know these as atomic.
template <class T, class F>
T read_modify_write(T* p, F change) {
  using Word = std::conditional_t<sizeof(T) == 8, uint64_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
  static_assert(sizeof(T) == sizeof(Word));
  if (reinterpret_cast<uintptr_t>(p) % sizeof(T)) trap("an atomic on a misaligned address", Place::current());
  Word* word = reinterpret_cast<Word*>(p);
  Word old = __atomic_load_n(word, __ATOMIC_RELAXED);
  while (true) {
    T next = change(std::bit_cast<T>(old));
    if (__atomic_compare_exchange_n(word, &old, std::bit_cast<Word>(next), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
      return std::bit_cast<T>(old);
  }
}

}  // namespace emulator

#define PB_PLACE ::emulator::Place at = ::emulator::Place::current()

inline void __syncthreads(PB_PLACE) { emulator::barrier(emulator::Vote::None, false, at); }
inline int __syncthreads_or(int p, PB_PLACE) { return emulator::barrier(emulator::Vote::Any, p != 0, at); }
inline int __syncthreads_and(int p, PB_PLACE) { return emulator::barrier(emulator::Vote::All, p != 0, at); }
inline int __syncthreads_count(int p, PB_PLACE) { return emulator::barrier(emulator::Vote::Count, p != 0, at); }
inline void __syncwarp(unsigned mask = ~0u, PB_PLACE) { emulator::exchange(emulator::Exchange::Sync, mask, 0, 0, at); }
inline unsigned __activemask() { return emulator::active_lanes(); }
#define __trap() ::emulator::trap("__trap()", ::emulator::Place::current())

template <class T>
T __shfl_sync(unsigned mask, T v, int source, int width = 32, PB_PLACE) {
  int segment = int(emulator::lane()) & ~(width - 1);
  return emulator::shuffle(mask, v, segment | (source & (width - 1)), true, at);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, PB_PLACE) {
  int lane = int(emulator::lane()), source = lane ^ bits;
  return emulator::shuffle(mask, v, source, source < (lane & ~(width - 1)) + width, at);
}
template <class T>
T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, PB_PLACE) {
  int lane = int(emulator::lane());
  return emulator::shuffle(mask, v, lane + int(by), (lane & (width - 1)) + int(by) < width, at);
}
template <class T>
T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, PB_PLACE) {
  int lane = int(emulator::lane());
  return emulator::shuffle(mask, v, lane - int(by), (lane & (width - 1)) >= int(by), at);
}
inline unsigned __ballot_sync(unsigned mask, int p, PB_PLACE) {
  return unsigned(emulator::exchange(emulator::Exchange::Ballot, mask, p != 0, 0, at));
}
inline int __any_sync(unsigned mask, int p, PB_PLACE) {
  return emulator::exchange(emulator::Exchange::Ballot, mask, p != 0, 0, at) != 0;
}
inline int __all_sync(unsigned mask, int p, PB_PLACE) {
  return emulator::exchange(emulator::Exchange::Ballot, mask, p == 0, 0, at) == 0;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T v, PB_PLACE) {
  return unsigned(emulator::exchange(emulator::Exchange::Match, mask, emulator::pack(v), 0, at));
}
#define PB_WARP_REDUCE(name, T, kind)                                                                               \
  inline T name(unsigned mask, T v, PB_PLACE) {                                                                     \
    /* the sign bit is turned round so that one unsigned order serves both */                                       \
    constexpr uint64_t flip = std::is_signed_v<T> ? 0x80000000u : 0u;                                               \
    constexpr bool ordered =                                                                                        \
        emulator::Exchange::kind == emulator::Exchange::Min || emulator::Exchange::kind == emulator::Exchange::Max; \
    uint64_t u = uint32_t(v) ^ (ordered ? flip : 0u);                                                               \
    return T(uint32_t(emulator::exchange(emulator::Exchange::kind, mask, u, 0, at) ^ (ordered ? flip : 0u)));       \
  }
PB_WARP_REDUCE(__reduce_add_sync, unsigned, Add)
PB_WARP_REDUCE(__reduce_add_sync, int, Add)
PB_WARP_REDUCE(__reduce_min_sync, unsigned, Min)
PB_WARP_REDUCE(__reduce_min_sync, int, Min)
PB_WARP_REDUCE(__reduce_max_sync, unsigned, Max)
PB_WARP_REDUCE(__reduce_max_sync, int, Max)
PB_WARP_REDUCE(__reduce_and_sync, unsigned, And)
PB_WARP_REDUCE(__reduce_or_sync, unsigned, Or)
PB_WARP_REDUCE(__reduce_xor_sync, unsigned, Xor)
#undef PB_WARP_REDUCE
#undef PB_PLACE

// ---- atomics
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  return emulator::read_modify_write(p, [&](T a) { return T(a + v); });
}
template <class T>
T atomicSub(T* p, std::type_identity_t<T> v) {
  return emulator::read_modify_write(p, [&](T a) { return T(a - v); });
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  return emulator::read_modify_write(p, [&](T a) { return v < a ? v : a; });
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  return emulator::read_modify_write(p, [&](T a) { return v > a ? v : a; });
}
template <class T>
T atomicAnd(T* p, std::type_identity_t<T> v) {
  return emulator::read_modify_write(p, [&](T a) { return T(a & v); });
}
template <class T>
T atomicOr(T* p, std::type_identity_t<T> v) {
  return emulator::read_modify_write(p, [&](T a) { return T(a | v); });
}
template <class T>
T atomicXor(T* p, std::type_identity_t<T> v) {
  return emulator::read_modify_write(p, [&](T a) { return T(a ^ v); });
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  return emulator::read_modify_write(p, [&](T) { return v; });
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  return emulator::read_modify_write(p, [&](T a) { return a == expected ? v : a; });
}
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_system() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// ---- loads and stores with hints
#define PB_LOAD(name)         \
  template <class T>          \
  inline T name(const T* p) { \
    return *p;                \
  }
PB_LOAD(__ldg)
PB_LOAD(__ldcs)
PB_LOAD(__ldcg)
PB_LOAD(__ldca)
PB_LOAD(__ldlu)
PB_LOAD(__ldcv)
#undef PB_LOAD
#define PB_STORE(name)                                \
  template <class T>                                  \
  inline void name(T* p, std::type_identity_t<T> v) { \
    *p = v;                                           \
  }
PB_STORE(__stcs)
PB_STORE(__stcg)
PB_STORE(__stwb)
PB_STORE(__stwt)
#undef PB_STORE

// ---- bits
inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; i++) r |= (x >> i & 1u) << (31 - i);
  return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  uint64_t all = uint64_t(b) << 32 | a;
  unsigned r = 0;
  for (int i = 0; i < 4; i++) {
    unsigned s = selector >> 4 * i & 15u, byte = unsigned(all >> 8 * (s & 7u)) & 255u;
    r |= (s & 8u ? (byte & 128u ? 255u : 0u) : byte) << 8 * i;
  }
  return r;
}
inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
  return unsigned((uint64_t(high) << 32 | low) << (by & 31u) >> 32);
}
inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
  return unsigned((uint64_t(high) << 32 | low) >> (by & 31u));
}
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

// ---- arithmetic; the fast forms are the exact ones here
inline float __fmaf_rn(float a, float b, float c) { return ::fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return ::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1.0f / a; }
inline float __fsqrt_rn(float a) { return ::sqrtf(a); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __expf(float x) { return ::expf(x); }
inline float __exp2f(float x) { return ::exp2f(x); }
inline float __logf(float x) { return ::logf(x); }
inline float __log2f(float x) { return ::log2f(x); }
inline float __sinf(float x) { return ::sinf(x); }
inline float __cosf(float x) { return ::cosf(x); }
inline float __powf(float x, float y) { return ::powf(x, y); }
inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }
inline float rsqrtf(float x) { return 1.0f / ::sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / ::sqrt(x); }
inline int __float2int_rn(float x) { return int(::rintf(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(::floorf(x)); }
inline unsigned __float2uint_rn(float x) { return unsigned(::rintf(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }
inline double __hiloint2double(int high, int low) {
  return std::bit_cast<double>(uint64_t(uint32_t(high)) << 32 | uint32_t(low));
}

#define PB_MIN_MAX(T)                              \
  inline T min(T a, T b) { return b < a ? b : a; } \
  inline T max(T a, T b) { return a < b ? b : a; }
PB_MIN_MAX(int)
PB_MIN_MAX(unsigned)
PB_MIN_MAX(long)
PB_MIN_MAX(unsigned long)
PB_MIN_MAX(long long)
PB_MIN_MAX(unsigned long long)
#undef PB_MIN_MAX
inline float min(float a, float b) { return ::fminf(a, b); }
inline float max(float a, float b) { return ::fmaxf(a, b); }
inline double min(double a, double b) { return ::fmin(a, b); }
inline double max(double a, double b) { return ::fmax(a, b); }
