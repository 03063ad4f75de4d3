# Debian packages: `cmake --build <folder> --target package`, or cpack in it. One for each component of
# cmake/MixtralInstall.cmake; dpkg-shlibdeps finds what the binaries need.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME mixtral)
set(CPACK_PACKAGE_CONTACT "the mixtral authors <mixtral@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL library development program)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")

set(library libmixtral${PROJECT_VERSION_MAJOR})
set(CPACK_DEBIAN_LIBRARY_PACKAGE_NAME ${library})
set(CPACK_DEBIAN_LIBRARY_PACKAGE_SECTION libs)
set(CPACK_COMPONENT_LIBRARY_DESCRIPTION "The shared library of the C ABI.")

set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libmixtral-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "${library} (= ${PROJECT_VERSION})")
# For the C++ headers; the C ABI needs neither.
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_RECOMMENDS "libxsimd-dev, libeigen3-dev")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SUGGESTS mixtral)
set(CPACK_COMPONENT_DEVELOPMENT_DESCRIPTION "Headers, archives, CMake and pkg-config files.")

set(CPACK_DEBIAN_PROGRAM_PACKAGE_NAME mixtral)
set(CPACK_DEBIAN_PROGRAM_PACKAGE_SECTION science)
set(CPACK_COMPONENT_PROGRAM_DESCRIPTION "The program, and a tiny model to try it with.")

foreach(package IN ITEMS library development program)
  string(TOUPPER ${package} name)
  install(FILES ${PROJECT_SOURCE_DIR}/LICENSE RENAME copyright COMPONENT ${package}
          DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${CPACK_DEBIAN_${name}_PACKAGE_NAME})
endforeach()
include(CPack)
