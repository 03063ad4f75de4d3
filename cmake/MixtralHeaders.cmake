# mixtral::headers: the header-only building blocks. Needs a C++20 compiler, xsimd, Eigen, OpenMP if found.
find_package(xsimd REQUIRED)
find_package(Eigen3 REQUIRED NO_MODULE)
find_package(OpenMP COMPONENTS CXX)

add_library(mixtral_headers INTERFACE)
add_library(mixtral::headers ALIAS mixtral_headers)
set_target_properties(mixtral_headers PROPERTIES EXPORT_NAME headers)
target_compile_features(mixtral_headers INTERFACE cxx_std_20)
target_include_directories(
  mixtral_headers INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                            $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(mixtral_headers INTERFACE xsimd Eigen3::Eigen)
if(OpenMP_CXX_FOUND)
  target_link_libraries(mixtral_headers INTERFACE OpenMP::OpenMP_CXX)
endif()
