// Writes safetensors files.
#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>

#include "core/json.hpp"
#include "io/safetensors_layout.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/tensor.hpp"
#include "mixtral/io/safetensors.hpp"

namespace mixtral {
namespace {

// The text as a JSON string.
std::string json_text(std::string_view text, std::string_view writer) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    fail(ErrorCode::kInvalidArgument, writer, ": ", json::quote(text), " is not UTF-8");
  }
}

void require_distinct(std::vector<std::string_view> names, std::string_view writer) {
  const std::optional<std::string_view> twice = json::first_duplicate(std::move(names));
  require(!twice.has_value(), writer, ": ", twice.value_or(""), " is given twice");
}

std::string metadata_text(const SafetensorsMetadata& metadata, std::string_view writer) {
  std::vector<std::string_view> keys;
  std::string text;
  for (const auto& [key, value] : metadata) {
    keys.emplace_back(key);
    text += str(text.empty() ? "" : ",", json_text(key, writer), ':', json_text(value, writer));
  }
  require_distinct(std::move(keys), writer);
  return str("\"__metadata__\":{", text, "},");
}

// Eight bytes, the lowest first.
std::string length_text(std::size_t length) {
  std::string bytes(8, '\0');
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(std::uint64_t{length} >> (8 * i));
  return bytes;
}

void check(const SafetensorsEntry& tensor) {
  const std::optional<Index> bytes = byte_count(tensor.dtype, tensor.shape);
  require(bytes.has_value() && static_cast<std::size_t>(*bytes) == tensor.data.size(),
          "write_safetensors: ", tensor.name, ": ", tensor.data.size(), " bytes for ", name_of(tensor.dtype), " ",
          shape_text(tensor.shape));
}

using Order = std::vector<const SafetensorsEntry*>;

// Wide elements first: then every tensor is aligned to its element, as the data begins at a multiple of 8.
Order file_order(std::span<const SafetensorsEntry> tensors) {
  Order order;
  for (const SafetensorsEntry& tensor : tensors) {
    check(tensor);
    order.push_back(&tensor);
  }
  // Ties keep the caller's order, that of the addresses. (clang 19 rejects libstdc++ 12's stable_sort.)
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    const Index x = size_of(a->dtype), y = size_of(b->dtype);
    return x > y || (x == y && a < b);
  });
  return order;
}

}  // namespace

std::string safetensors_header(std::span<const HeaderTensor> tensors, const SafetensorsMetadata& metadata,
                               Index alignment, std::string_view writer) {
  std::string text = "{";
  if (!metadata.empty()) text += metadata_text(metadata, writer);
  std::vector<std::string_view> names;
  Index begin = 0;
  for (const HeaderTensor& tensor : tensors) {
    require(tensor.name != "__metadata__", writer, ": a tensor cannot be named __metadata__");
    names.push_back(tensor.name);
    const Index end = begin + tensor.bytes;
    text += str(json_text(tensor.name, writer), ":{\"dtype\":\"", name_of(tensor.dtype),
                "\",\"shape\":", shape_text(tensor.shape), ",\"data_offsets\":[", begin, ",", end, "]},");
    begin = end;
  }
  require_distinct(std::move(names), writer);
  if (text.back() == ',') text.pop_back();
  text += '}';
  const auto unit = static_cast<std::size_t>(alignment);
  text.resize((text.size() + 8 + unit - 1) / unit * unit - 8, ' ');
  require(text.size() <= static_cast<std::size_t>(kMaxSafetensorsHeader), writer, ": header of ", text.size(),
          " bytes, expected at most ", kMaxSafetensorsHeader);
  return length_text(text.size()) + text;
}

void write_safetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> tensors,
                       const SafetensorsMetadata& metadata) {
  const Order order = file_order(tensors);
  std::vector<HeaderTensor> listed;
  for (const SafetensorsEntry* tensor : order) {
    listed.push_back({tensor->name, tensor->dtype, tensor->shape, static_cast<Index>(tensor->data.size())});
  }
  const std::string header = safetensors_header(listed, metadata, 8, "write_safetensors");

  AtomicFileWriter file(path);
  file.write(std::as_bytes(std::span(header)));
  for (const SafetensorsEntry* tensor : order) file.write(tensor->data);
  file.commit();
}

}  // namespace mixtral
