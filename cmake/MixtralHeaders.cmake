# mixtral::headers: the header-only building blocks. Needs a C++20 compiler, xsimd, Eigen, OpenMP if found.
# Debian's xsimd target drags in xtl, which only complex numbers need: the headers are all that we use.
find_path(MIXTRAL_XSIMD_DIR xsimd/xsimd.hpp REQUIRED)
mark_as_advanced(MIXTRAL_XSIMD_DIR)
find_package(Eigen3 REQUIRED NO_MODULE)
find_package(OpenMP COMPONENTS CXX)

add_library(mixtral_headers INTERFACE)
add_library(mixtral::headers ALIAS mixtral_headers)
set_target_properties(mixtral_headers PROPERTIES EXPORT_NAME headers)
target_compile_features(mixtral_headers INTERFACE cxx_std_20)
target_include_directories(
  mixtral_headers INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                            $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_include_directories(mixtral_headers SYSTEM INTERFACE $<BUILD_INTERFACE:${MIXTRAL_XSIMD_DIR}>)
target_link_libraries(mixtral_headers INTERFACE Eigen3::Eigen)
if(OpenMP_CXX_FOUND)
  target_link_libraries(mixtral_headers INTERFACE OpenMP::OpenMP_CXX)
endif()
