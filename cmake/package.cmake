# What the wheel carries: the extension, the engine, headers, a CMake config, stubs.
set(PB_PACKAGE pullback)
install(TARGETS _core LIBRARY DESTINATION ${PB_PACKAGE})
install(TARGETS pullback_engine EXPORT pullbackTargets LIBRARY DESTINATION ${PB_PACKAGE})
install(DIRECTORY csrc/ DESTINATION ${PB_PACKAGE}/include FILES_MATCHING PATTERN "*.h" PATTERN "bind" EXCLUDE)
install(EXPORT pullbackTargets NAMESPACE pullback:: DESTINATION ${PB_PACKAGE}/cmake)
install(FILES cmake/pullbackConfig.cmake DESTINATION ${PB_PACKAGE}/cmake)
