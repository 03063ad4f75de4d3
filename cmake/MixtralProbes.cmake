# Probes of the machine's ceilings, for `mixtral bench` and bench/. Not installed.
file(GLOB MIXTRAL_PROBES_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/src/probes/*.cpp)
add_library(mixtral_probes STATIC ${MIXTRAL_PROBES_SOURCES})
target_include_directories(mixtral_probes PUBLIC ${PROJECT_SOURCE_DIR}/src)
target_link_libraries(mixtral_probes PUBLIC mixtral::core PRIVATE mixtral_flags mixtral_sanitize)
