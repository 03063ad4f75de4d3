# mixtral::capi: the C ABI as a shared library with nothing of C++ in its symbols, and as a static one.
file(GLOB MIXTRAL_CAPI_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/capi/*.cpp)
foreach(kind IN ITEMS SHARED STATIC)
  string(TOLOWER mixtral_capi_${kind} target)
  add_library(${target} ${kind} ${MIXTRAL_CAPI_SOURCES})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME mixtral CXX_VISIBILITY_PRESET hidden
                                             VISIBILITY_INLINES_HIDDEN ON)
  target_include_directories(${target} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/capi/include>
                                              $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${target} PRIVATE mixtral::core $<BUILD_INTERFACE:mixtral_flags>
                                          $<BUILD_INTERFACE:mixtral_sanitize>)
endforeach()
set_target_properties(mixtral_capi_shared PROPERTIES VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
add_library(mixtral::capi ALIAS mixtral_capi_shared)
add_library(mixtral::capi_static ALIAS mixtral_capi_static)
