// What a kernel unit may use from outside: standard headers, intrinsics and the C thread interface.
// Everything else is included inside an anonymous namespace (Note [No weak symbol in an ISA object]).
//
// Note [No weak symbol in an ISA object]
// The same kernel text is compiled for x86-64-v2, v3 and v4. A template or inline function with external linkage
// would be emitted in all three objects and the linker would keep one of them, possibly the AVX-512 copy, for every
// CPU. So a unit includes this header first and puts all other text inside `namespace { }`; one C symbol with a
// constant table leaves the object. CI checks the objects with nm.
#pragma once
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>
#include <type_traits>
#include <utility>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

extern "C" {
// Runs body(ctx, begin, end) over [0, n) in pieces of at least `grain`; serial for n <= grain or one thread.
void pb_parallel_for(int64_t n, int64_t grain, void (*body)(void* ctx, int64_t begin, int64_t end), void* ctx);
int pb_num_threads();
// A 64-byte aligned buffer of this thread that stays allocated; slots 0..7 are distinct.
void* pb_scratch(int slot, size_t bytes);
}

#ifndef PB_ISA
#define PB_ISA v2
#endif
#define PB_CAT3_(a, b, c) a##b##_##c
#define PB_CAT3(a, b, c) PB_CAT3_(a, b, c)
#define PB_TABLE(unit) PB_CAT3(pb_, PB_ISA, unit)
