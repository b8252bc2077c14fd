# find_package(pullback): the target pullback::engine with the headers of this installation.
# Point CMAKE_PREFIX_PATH or pullback_DIR at `python -m pullback info --cmake-dir`.
include(${CMAKE_CURRENT_LIST_DIR}/pullbackTargets.cmake)
set(PULLBACK_INCLUDE_DIR ${CMAKE_CURRENT_LIST_DIR}/../include)
set_target_properties(pullback::engine PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${PULLBACK_INCLUDE_DIR})
