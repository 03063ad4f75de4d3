// Reference data: tensors, manifest, tolerances.
#pragma once

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "mixtral/io/safetensors.hpp"

namespace mixtral::test {

inline std::filesystem::path golden_dir() { return MIXTRAL_GOLDEN_DIR; }
inline std::filesystem::path tiny_dir() { return MIXTRAL_TINY_DIR; }

nlohmann::json read_json(const std::filesystem::path& path);

// A tensor's elements; T must be the tensor's own type.
template <class T>
std::vector<T> elements(const SafetensorsFile& file, std::string_view name) {
  const SafetensorsEntry& entry = file.at(name);
  require(entry.dtype == dtype_of<T>::value, "test: ", name, " is ", name_of(entry.dtype));
  std::vector<T> out(entry.data.size() / sizeof(T));
  std::memcpy(out.data(), entry.data.data(), entry.data.size());
  return out;
}

// The manifest's reading of a tolerance: |got - want| <= atol + rtol * |want|.
struct Tolerance {
  double atol = 0, rtol = 0;
};
Tolerance tolerance(const nlohmann::json& manifest, std::string_view name);

// The largest excess over the tolerance in units of the tolerance, or 0 if all is within; infinity where sizes
// differ or a value is not a number.
double excess(std::span<const float> got, std::span<const float> want, Tolerance tolerance);

}  // namespace mixtral::test
