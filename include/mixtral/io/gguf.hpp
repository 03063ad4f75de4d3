// GGUF, versions 2 and 3: keys with values, a list of tensors, and their data. Little-endian.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/file.hpp"
#include "mixtral/core/types.hpp"
#include "mixtral/io/ggml_type.hpp"

namespace mixtral {

// The types of values, by the format's numbers.
enum class GgufType : std::uint32_t {
  kU8 = 0,
  kI8 = 1,
  kU16 = 2,
  kI16 = 3,
  kU32 = 4,
  kI32 = 5,
  kF32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kU64 = 10,
  kI64 = 11,
  kF64 = 12,
};
// "u32", "string", "array".
std::string_view name_of(GgufType type) noexcept;

struct GgufKey {
  std::string_view name;
  GgufType type = GgufType::kU8;     // kArray: of elements of the next type, never of arrays
  GgufType element = GgufType::kU8;  // of an array; otherwise `type`
  Index count = 1;                   // elements
  std::span<const std::byte> bytes;  // of the elements, as they lie in the file; each string has its length in front
};

struct GgufTensor {
  std::string_view name;
  GgmlType type = GgmlType::kF32;
  std::vector<Index> shape;         // outermost first, without ones in front; at least one dimension
  std::span<const std::byte> data;  // dense rows of whole blocks; at the file's alignment

  Index size() const noexcept;  // elements
};

// A checked header and views on the data. Nothing is copied but shapes, and nothing is allocated by an unchecked
// number.
//
// Refused with Error(kBadFormat) that names the file, the key or tensor and the numbers: another magic, what ends too
// early, more than 2^16 keys or 2^20 tensors, names longer than 65535 bytes, a name given twice, values of an unknown
// type, arrays of arrays, a truth value other than 0 and 1, an alignment that is no power of two, more than four
// dimensions, empty ones, sizes that overflow, rows of no whole blocks, data that are not aligned, overlap or lie
// outside the file. Error(kUnsupported): another version, big-endian files, tensor types that are not in GgmlType.
class GgufFile {
 public:
  // Maps the file. Throws also as MappedFile does.
  explicit GgufFile(const std::filesystem::path& path);
  // Looks at `bytes`, which must outlive this; `name` stands in messages.
  GgufFile(std::span<const std::byte> bytes, std::string name);

  const std::string& name() const noexcept { return name_; }
  std::uint32_t version() const noexcept { return version_; }
  Index alignment() const noexcept { return alignment_; }
  const std::vector<GgufKey>& keys() const noexcept { return keys_; }           // sorted by name
  const std::vector<GgufTensor>& tensors() const noexcept { return tensors_; }  // sorted by name

  // nullptr if there is none.
  const GgufKey* find_key(std::string_view name) const noexcept;
  const GgufTensor* find_tensor(std::string_view name) const noexcept;

  // The value of a key; nothing if there is none. Each throws Error(kBadFormat) with key, type and value if it has
  // another type: integers may be of any width and sign, numbers any kind of float or integer.
  std::optional<Index> integer(std::string_view key, Index least, Index most) const;
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> text(std::string_view key) const;
  std::optional<std::vector<std::string_view>> texts(std::string_view key) const;  // array of strings
  std::optional<std::vector<float>> floats(std::string_view key) const;            // array of f32
  std::optional<std::vector<Index>> integers(std::string_view key) const;          // array of integers

 private:
  void read(std::span<const std::byte> bytes);
  const GgufKey* expect(std::string_view key, bool array, std::string_view what, bool (*fits)(GgufType)) const;

  std::optional<MappedFile> file_;
  std::string name_;
  std::uint32_t version_ = 0;
  Index alignment_ = 32;
  std::vector<GgufKey> keys_;
  std::vector<GgufTensor> tensors_;
};

}  // namespace mixtral
