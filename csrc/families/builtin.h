// Fills the registry with the built-in ops, once.
#pragma once
namespace pb {
void register_builtin_ops();
}  // namespace pb
