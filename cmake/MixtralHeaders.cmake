# mixtral::headers: the header-only building blocks. Needs a C++20 compiler, xsimd, Eigen, OpenMP if found.
include(${CMAKE_CURRENT_LIST_DIR}/mixtralDependencies.cmake)
if(NOT TARGET mixtral::xsimd)
  message(FATAL_ERROR "xsimd/xsimd.hpp is not found (MIXTRAL_XSIMD_DIR)")
endif()
find_package(Eigen3 REQUIRED NO_MODULE)
find_package(OpenMP COMPONENTS CXX)

add_library(mixtral_headers INTERFACE)
add_library(mixtral::headers ALIAS mixtral_headers)
set_target_properties(mixtral_headers PROPERTIES EXPORT_NAME headers)
target_compile_features(mixtral_headers INTERFACE cxx_std_20)
target_include_directories(mixtral_headers INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>)
# Who uses the installed headers may have no OpenMP.
target_link_libraries(mixtral_headers INTERFACE mixtral::xsimd Eigen3::Eigen
                                                $<TARGET_NAME_IF_EXISTS:OpenMP::OpenMP_CXX>)
