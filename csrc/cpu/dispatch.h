// One ISA level is chosen at the first use: the widest that the CPU has, or what PULLBACK_ISA asks for.
#pragma once
#include <string_view>

namespace pb {

const char* isa_level();                       // "v2", "v3" or "v4"
const void* isa_table(std::string_view unit);  // the unit's table of that level
bool cpu_has_bf16();                           // the instruction that multiplies pairs of bfloat16 with zmm registers

}  // namespace pb
