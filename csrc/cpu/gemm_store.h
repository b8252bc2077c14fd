// Store policies: what happens to an element of the product when its sum is complete, while its tile is in L1.
#pragma once

namespace pb {

// A policy sees x, the sum, and col, its column.
struct StoreIdentity {
  static constexpr bool active = false;
};
template <class S>
struct StoreBias {
  static constexpr bool active = true;
  const S* bias;
  S operator()(S x, int64_t col) const { return x + bias[col]; }
};
// Act is a formula on one value; First another policy, applied before it.
template <class S, class First, class Act>
struct StoreAct {
  static constexpr bool active = true;
  First first;
  Act act;
  S operator()(S x, int64_t col) const {
    if constexpr (First::active)
      return act(first(x, col));
    else
      return act(x);
  }
};
template <class S, class Store>
void finish(S* c, int64_t c_row, int64_t rows, int64_t cols, int64_t col, const Store& store) {
  if constexpr (Store::active)
    for (int64_t i = 0; i < rows; i++, c += c_row)
      for (int64_t j = 0; j < cols; j++) c[j] = store(c[j], col + j);
}

}  // namespace pb
