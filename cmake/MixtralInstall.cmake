# What `cmake --install` puts where: three components, which cmake/MixtralPackage.cmake makes three Debian packages of.
#   library      libmixtral.so.1
#   development  headers, archives, CMake and pkg-config files
#   program      `mixtral` and the tiny model
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/mixtral)

# Each part of the package has its own file of targets, so that a user of one needs no other's dependencies.
set(MIXTRAL_PARTS "")
function(mixtral_install_part part target)
  install(TARGETS ${target} EXPORT mixtral-${part}
          ARCHIVE COMPONENT development
          LIBRARY COMPONENT library NAMELINK_COMPONENT development
          INCLUDES DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
  install(EXPORT mixtral-${part} NAMESPACE mixtral:: DESTINATION ${config_dir} COMPONENT development)
  set(MIXTRAL_PARTS ${MIXTRAL_PARTS} ${part} PARENT_SCOPE)
endfunction()

mixtral_install_part(headers mixtral_headers)
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/mixtral TYPE INCLUDE COMPONENT development
        FILES_MATCHING PATTERN *.hpp)
if(MIXTRAL_BUILD_CORE)
  mixtral_install_part(core mixtral_core)
endif()
if(MIXTRAL_BUILD_CAPI)
  mixtral_install_part(capi mixtral_capi_shared)
  mixtral_install_part(capi_static mixtral_capi_static)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/capi/include/ TYPE INCLUDE COMPONENT development)
endif()
if(MIXTRAL_BUILD_CLI)
  install(TARGETS mixtral_cli RUNTIME COMPONENT program)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/examples/models/tiny DESTINATION ${CMAKE_INSTALL_DATADIR}/mixtral/models
          COMPONENT program PATTERN make EXCLUDE)
endif()

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/mixtralConfig.cmake.in mixtralConfig.cmake
                              INSTALL_DESTINATION ${config_dir} NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(mixtralConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES ${PROJECT_BINARY_DIR}/mixtralConfig.cmake ${PROJECT_BINARY_DIR}/mixtralConfigVersion.cmake
              ${CMAKE_CURRENT_LIST_DIR}/mixtralDependencies.cmake
        DESTINATION ${config_dir} COMPONENT development)

# pkg-config files name everything from their own place, so that the prefix may be moved.
function(mixtral_pkg_config name)
  cmake_path(SET from NORMALIZE "${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig")
  foreach(kind IN ITEMS LIB INCLUDE)
    cmake_path(RELATIVE_PATH CMAKE_INSTALL_FULL_${kind}DIR BASE_DIRECTORY ${from} OUTPUT_VARIABLE ${kind}_FROM_PC)
  endforeach()
  configure_file(${CMAKE_CURRENT_FUNCTION_LIST_DIR}/${name}.pc.in ${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
endfunction()
list(TRANSFORM MIXTRAL_SYSTEM_LIBRARIES PREPEND "-l" OUTPUT_VARIABLE MIXTRAL_LIBS)
list(JOIN MIXTRAL_LIBS " " MIXTRAL_LIBS)
if(MIXTRAL_BUILD_CORE)
  mixtral_pkg_config(mixtral-core)
endif()
if(MIXTRAL_BUILD_CAPI)
  mixtral_pkg_config(mixtral)
endif()
if(PROJECT_IS_TOP_LEVEL)
  include(MixtralPackage)
endif()
