// The registry rows of ops outside the Map and Reduce families. `pb.ops()`, the docs and the tests walk them;
// Map and Reduce rows are made from their structs.
#pragma once
#include <string_view>
#include <vector>

namespace pb {

struct OpInfo {
  std::string_view name, family;         // family: Row, Linear, View or Custom
  std::string_view signature, doc;       // "softmax(x, axis=-1)"
  std::string_view derivative = "pull";  // "pull" or "none"
};
void add_info(const OpInfo& info);
const std::vector<OpInfo>& infos();

}  // namespace pb
