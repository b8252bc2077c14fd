#include "families/registry.h"

namespace pb {

namespace {
std::vector<OpInfo>& rows() {
  static auto* r = new std::vector<OpInfo>;
  return *r;
}
}  // namespace

void add_info(const OpInfo& info) { rows().push_back(info); }
const std::vector<OpInfo>& infos() { return rows(); }

}  // namespace pb
