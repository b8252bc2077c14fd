"""The kernels of pullback inside PyTorch programs. PyTorch is imported by the submodules that need it."""
