# mixtral::xsimd, where the headers are found: Debian's own target drags in xtl, which only complex numbers need. The
# build includes this file, and so does the installed mixtralConfig.cmake.
find_path(MIXTRAL_XSIMD_DIR xsimd/xsimd.hpp)
mark_as_advanced(MIXTRAL_XSIMD_DIR)

if(MIXTRAL_XSIMD_DIR AND NOT TARGET mixtral::xsimd)
  add_library(mixtral::xsimd INTERFACE IMPORTED)
  set_target_properties(mixtral::xsimd PROPERTIES INTERFACE_INCLUDE_DIRECTORIES ${MIXTRAL_XSIMD_DIR})
endif()
