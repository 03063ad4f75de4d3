// The safetensors format: 8 bytes little-endian header length, a JSON header, raw little-endian data.
#pragma once

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "mixtral/core/dtype.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<Index> shape;         // row-major; empty: one element
  std::span<const std::byte> data;  // dense; at any alignment
};

// Free text about the file.
using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

// A checked header and views on the data. Nothing is copied but the header's names and shapes.
//
// Refused with Error(kBadFormat) that names the file, the tensor and the numbers: a header longer than 100 MB
// or than the file, one that is not a JSON object of {dtype, shape, data_offsets}, a name given twice, more
// than 32 dimensions, an offset range that does not fit dtype and shape, data with holes, overlaps or a rest, anything
// but white space behind the JSON. Further fields of a tensor are ignored, as the format's own reader does.
// Error(kUnsupported): a dtype that is not in kDTypes or packed; a file of another format that is known by its first
// bytes.
class SafetensorsFile {
 public:
  // Maps the file. Throws also as MappedFile does.
  explicit SafetensorsFile(const std::filesystem::path& path);
  // Looks at `bytes`, which must outlive this; `name` stands in messages.
  SafetensorsFile(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const noexcept { return name_; }
  // Sorted by name.
  const std::vector<SafetensorsEntry>& entries() const noexcept { return entries_; }
  const SafetensorsMetadata& metadata() const noexcept { return metadata_; }
  // Its JSON, with the spaces that pad it. Data begin right behind, eight bytes of length stand in front.
  std::string_view header() const noexcept { return header_; }

  // nullptr if there is none.
  const SafetensorsEntry* find(std::string_view tensor) const noexcept;
  // Throws Error(kNotFound) that names the file and the tensor.
  const SafetensorsEntry& at(std::string_view tensor) const;

 private:
  void read(std::span<const std::byte> bytes);

  std::optional<MappedFile> file_;
  std::string name_;
  std::string_view header_;
  std::vector<SafetensorsEntry> entries_;
  SafetensorsMetadata metadata_;
};

// Writes the file atomically (core/file.hpp), tensors with wide elements first so that all data is aligned.
// Throws Error(kInvalidArgument) that names the tensor if a name comes twice, is "__metadata__" or is not
// UTF-8, or if data and shape do not fit; Error(kNotFound | kIo). On any error `path` is as it was.
void write_safetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> tensors,
                       const SafetensorsMetadata& metadata = {});

}  // namespace mixtral
