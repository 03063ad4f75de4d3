# mixtral::capi and mixtral::capi_static: the C ABI as libmixtral.so and libmixtral.a. Both hold all of the library
# that they need and show nothing but the functions of mixtral.h.
file(GLOB MIXTRAL_CAPI_SOURCES CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/capi/*.cpp)
add_library(mixtral_capi_objects OBJECT ${MIXTRAL_CAPI_SOURCES})
set_target_properties(mixtral_capi_objects PROPERTIES CXX_VISIBILITY_PRESET hidden VISIBILITY_INLINES_HIDDEN ON)
target_compile_options(mixtral_capi_objects PRIVATE ${MIXTRAL_NO_UNIQUE})
target_include_directories(mixtral_capi_objects PUBLIC ${PROJECT_SOURCE_DIR}/capi/include)
target_link_libraries(mixtral_capi_objects PUBLIC mixtral::core PRIVATE mixtral_flags mixtral_sanitize)

# The version script also hides what visibility cannot: the standard library's inline functions.
function(mixtral_link_capi target) # objects or libraries
  target_link_libraries(${target} PRIVATE ${ARGN} mixtral_sanitize)
  set(map ${PROJECT_SOURCE_DIR}/capi/mixtral.map)
  target_link_options(${target} PRIVATE -Wl,--version-script=${map} -Wl,-Bsymbolic-functions -Wl,--as-needed)
  if(NOT MIXTRAL_SANITIZE) # a sanitizer's functions come with the program
    target_link_options(${target} PRIVATE -Wl,--no-undefined)
  endif()
  set_target_properties(${target} PROPERTIES OUTPUT_NAME mixtral LINKER_LANGUAGE CXX LINK_DEPENDS ${map}
                                             VERSION ${PROJECT_VERSION} SOVERSION ${PROJECT_VERSION_MAJOR})
endfunction()
add_library(mixtral_capi_shared SHARED)
mixtral_link_capi(mixtral_capi_shared mixtral_capi_objects)

# The archive has one member: the objects of the C ABI and those of mixtral::core that they call, linked into one and
# all symbols made local but mixtral_*. So a C program names one archive, and no C++ symbol meets the host's own.
# (--force-group-allocation: inline functions no longer stand in groups that the linker could drop for the host's.)
separate_arguments(flags NATIVE_COMMAND "${CMAKE_CXX_FLAGS}")
set(object ${CMAKE_CURRENT_BINARY_DIR}/mixtral_capi.o)
add_custom_command(
  OUTPUT ${object}
  COMMAND ${CMAKE_CXX_COMPILER} ${flags} -r -nostdlib -Wl,--force-group-allocation -o ${object}.all
          $<TARGET_OBJECTS:mixtral_capi_objects> $<TARGET_FILE:mixtral_core>
  COMMAND ${CMAKE_OBJCOPY} --wildcard --keep-global-symbol=mixtral_* ${object}.all ${object}
  DEPENDS mixtral_capi_objects $<TARGET_OBJECTS:mixtral_capi_objects> mixtral_core
  COMMAND_EXPAND_LISTS VERBATIM)
set_source_files_properties(${object} PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
add_library(mixtral_capi_static STATIC ${object})
set_target_properties(mixtral_capi_static PROPERTIES OUTPUT_NAME mixtral LINKER_LANGUAGE CXX)
target_link_libraries(mixtral_capi_static INTERFACE ${MIXTRAL_SYSTEM_LIBRARIES}
                                                    $<BUILD_INTERFACE:mixtral_sanitize>)

foreach(target IN ITEMS mixtral_capi_shared mixtral_capi_static)
  string(REGEX REPLACE "^mixtral_|_shared$" "" name ${target})
  add_library(mixtral::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(${target} INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/capi/include>)
endforeach()
