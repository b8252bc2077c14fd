# What the wheel carries: the extension, the engine, headers and a CMake config.
include(CMakePackageConfigHelpers)
set(PB_PACKAGE pullback)
install(TARGETS _core LIBRARY DESTINATION ${PB_PACKAGE})
install(TARGETS pullback_engine EXPORT pullbackTargets LIBRARY DESTINATION ${PB_PACKAGE})
install(DIRECTORY csrc/ DESTINATION ${PB_PACKAGE}/include FILES_MATCHING PATTERN "*.h" PATTERN "bind" EXCLUDE
        PATTERN "cuda" EXCLUDE)
install(EXPORT pullbackTargets NAMESPACE pullback:: DESTINATION ${PB_PACKAGE}/cmake)
configure_package_config_file(cmake/pullbackConfig.cmake.in ${PB_GENERATED}/pullbackConfig.cmake
                              INSTALL_DESTINATION ${PB_PACKAGE}/cmake NO_SET_AND_CHECK_MACRO
                              NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(${PB_GENERATED}/pullbackConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PB_GENERATED}/pullbackConfig.cmake ${PB_GENERATED}/pullbackConfigVersion.cmake
        DESTINATION ${PB_PACKAGE}/cmake)
