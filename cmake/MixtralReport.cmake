# Tables, charts and pages of results, for the program. Not installed.
file(GLOB MIXTRAL_REPORT_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/report/*.cpp)
add_library(mixtral_report STATIC ${MIXTRAL_REPORT_SOURCES})
target_include_directories(mixtral_report PUBLIC ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(mixtral_report PUBLIC mixtral::core mixtral_probes nlohmann_json::nlohmann_json
                                     PRIVATE mixtral_flags mixtral_sanitize)
