#include "extend/op.h"

namespace pb::extend {

void add_row(const MapOp& row, uint64_t layout) {
  if (layout != kLayout)
    fail<ValueError>("add_op", "the extension was built with the headers of another version of pullback",
                     "build it again with this installation's headers");
  add_map(row);
}

}  // namespace pb::extend
