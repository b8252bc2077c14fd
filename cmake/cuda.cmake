# The CUDA library is a separate shared object; see PB_CUDA in CMakeLists.txt.
