# The CUDA library: kernels of the same structs as the CPU's, in a shared object that is opened only where a driver is
# (csrc/cuda/api.h). AUTO builds it when an nvcc is found that can compile a small file, and says in one line why not.
if(PB_CUDA STREQUAL "OFF")
  return()
endif()
set(PB_CUDA_ARCHITECTURES "80-real;90-real;80-virtual" CACHE STRING "Architectures of the CUDA library")
set(nvcc_flags --expt-relaxed-constexpr --fmad=false)

find_program(PB_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
if(NOT PB_NVCC)
  set(problem "no nvcc was found")
else()
  execute_process(COMMAND ${PB_NVCC} -std=c++20 -arch=sm_80 -I${CMAKE_CURRENT_SOURCE_DIR}/csrc ${nvcc_flags}
                          --compress-mode=size -c ${CMAKE_CURRENT_SOURCE_DIR}/cmake/probe.cu
                          -o ${CMAKE_CURRENT_BINARY_DIR}/probe.o
                  RESULT_VARIABLE failed OUTPUT_VARIABLE text ERROR_VARIABLE text)
  if(failed)
    string(REGEX MATCH "[^\n]+" first "${text}")
    set(problem "${PB_NVCC} cannot compile a small file: ${first}")
  endif()
endif()
if(problem)
  if(PB_CUDA STREQUAL "ON")
    message(FATAL_ERROR "PB_CUDA=ON: ${problem}")
  endif()
  message(STATUS "CUDA library: not built, ${problem}")
  return()
endif()

set(CMAKE_CUDA_COMPILER ${PB_NVCC})
set(CMAKE_CUDA_ARCHITECTURES ${PB_CUDA_ARCHITECTURES})
set(CMAKE_CUDA_STANDARD 20)
enable_language(CUDA)
message(STATUS "CUDA library: ${PB_NVCC} ${CMAKE_CUDA_COMPILER_VERSION}, ${PB_CUDA_ARCHITECTURES}")

set(units)
set(cuda_sources csrc/cuda/table.cu csrc/cuda/memory.cu csrc/cuda/copy.cu csrc/cuda/reduce.cu csrc/cuda/optim.cu csrc/cuda/code.cu
    csrc/cuda/row.cu csrc/cuda/channel.cu csrc/cuda/scan.cu csrc/cuda/order.cu csrc/cuda/loss.cu csrc/cuda/gather.cu
    csrc/cuda/scatter.cu csrc/cuda/matmul.cu csrc/cuda/conv.cu csrc/cuda/pool.cu csrc/cuda/attention.cu)
foreach(unit IN LISTS PB_MAP_UNITS)
  configure_file(cmake/map_cuda.cu.in ${PB_GENERATED}/${unit}.cu @ONLY)
  list(APPEND cuda_sources ${PB_GENERATED}/${unit}.cu)
  string(APPEND units "PB_UNIT(${unit})\n")
endforeach()
file(CONFIGURE OUTPUT ${PB_GENERATED}/cuda_units.inc CONTENT "${units}" @ONLY)

add_library(_cuda MODULE ${cuda_sources})
target_include_directories(_cuda PRIVATE csrc ${PB_GENERATED})
target_compile_options(_cuda PRIVATE ${nvcc_flags} --compress-mode=size)
set_target_properties(_cuda PROPERTIES PREFIX "" CUDA_RUNTIME_LIBRARY Static CUDA_VISIBILITY_PRESET hidden)
target_link_options(_cuda PRIVATE -Wl,--exclude-libs,ALL)
install(TARGETS _cuda LIBRARY DESTINATION pullback)
