// Checks of the C++ tests: each prints its failure and main returns `failures() != 0`.
#pragma once
#include <cstdio>

inline int& failures() {
  static int n = 0;
  return n;
}
inline bool check_that(bool ok, const char* text, const char* file, int line) {
  if (ok) return true;
  if (failures()++ < 50) std::printf("%s:%d: failed: %s\n", file, line, text);
  return false;
}
inline void check_at_most(double value, double bound, const char* text, const char* file, int line) {
  if (!check_that(value <= bound, text, file, line)) std::printf("    %.9g exceeds %.9g\n", value, bound);  // NaN fails
}
#define CHECK(condition) check_that((condition), #condition, __FILE__, __LINE__)
#define CHECK_AT_MOST(value, bound) check_at_most((value), (bound), #value, __FILE__, __LINE__)
