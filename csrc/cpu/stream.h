// Writing past the caches. Included after cpu/isa_std.h.
//
// Note [Streaming stores]
// An output that does not stay in the last cache is written past it: an ordinary store would first read the line from
// memory. The kernel fills a buffer in L1, which is then streamed. Inside the caches this would lose, and in place the
// lines are there already.
#pragma once

namespace pb {

inline constexpr int64_t kStreamBytes = int64_t(32) << 20;

#if defined(__AVX512F__)
using Streamed = __m512i;
inline void stream_store(char* p, Streamed v) { _mm512_stream_si512(reinterpret_cast<Streamed*>(p), v); }
#elif defined(__AVX__)
using Streamed = __m256i;
inline void stream_store(char* p, Streamed v) { _mm256_stream_si256(reinterpret_cast<Streamed*>(p), v); }
#elif defined(__SSE2__)
using Streamed = __m128i;
inline void stream_store(char* p, Streamed v) { _mm_stream_si128(reinterpret_cast<Streamed*>(p), v); }
#else
using Streamed = int64_t;
inline void stream_store(char* p, Streamed v) { std::memcpy(p, &v, sizeof(v)); }
#endif

// One line of 64 bytes; `to` is aligned to it.
inline void stream_line(char* to, const char* from) {
  for (int64_t i = 0; i < 64; i += int64_t(sizeof(Streamed))) {
    Streamed v;
    std::memcpy(&v, from + i, sizeof(v));
    stream_store(to + i, v);
  }
}

inline void stream(void* to, const void* from, int64_t bytes) {
  auto* dst = static_cast<char*>(to);
  const auto* src = static_cast<const char*>(from);
  int64_t i = -reinterpret_cast<intptr_t>(dst) & 63;
  if (i > bytes) i = bytes;
  std::memcpy(dst, src, size_t(i));
  for (; i + 64 <= bytes; i += 64) stream_line(dst + i, src + i);
  std::memcpy(dst + i, src + i, size_t(bytes - i));
}

// Other threads see the streamed bytes from here on.
inline void stream_done() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace pb
