# The program `mixtral`. It finds the tiny model at ../share/mixtral/models/tiny beside its own folder,
# in the build tree as in an installation.
find_package(CLI11 REQUIRED)
find_package(PkgConfig REQUIRED)
pkg_check_modules(libedit REQUIRED IMPORTED_TARGET libedit)
file(GLOB MIXTRAL_CLI_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/cli/*.cpp)
add_executable(mixtral_cli ${MIXTRAL_CLI_SOURCES})
set_target_properties(mixtral_cli PROPERTIES OUTPUT_NAME mixtral)
target_include_directories(mixtral_cli PRIVATE ${PROJECT_SOURCE_DIR}/src)
target_compile_definitions(mixtral_cli PRIVATE MIXTRAL_PROGRAM_VERSION="${PROJECT_VERSION}")
target_link_libraries(mixtral_cli PRIVATE mixtral::core mixtral_probes mixtral_report CLI11::CLI11
                                          PkgConfig::libedit nlohmann_json::nlohmann_json mixtral_flags mixtral_sanitize)
file(MAKE_DIRECTORY ${PROJECT_BINARY_DIR}/share/mixtral/models)
file(CREATE_LINK ${PROJECT_SOURCE_DIR}/examples/models/tiny ${PROJECT_BINARY_DIR}/share/mixtral/models/tiny SYMBOLIC)
