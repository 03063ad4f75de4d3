// Writes safetensors files.
#include <algorithm>
#include <array>
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
std::string json_text(const std::string& text) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    fail(ErrorCode::kInvalidArgument, "write_safetensors: ", json::quote(text), " is not UTF-8");
  }
}

void check(const SafetensorsEntry& tensor) {
  require(tensor.name != "__metadata__", "write_safetensors: a tensor cannot be named __metadata__");
  const std::optional<Index> bytes = byte_count(tensor.dtype, tensor.shape);
  require(bytes.has_value() && static_cast<std::size_t>(*bytes) == tensor.data.size(),
          "write_safetensors: ", tensor.name, ": ", tensor.data.size(), " bytes for ", name_of(tensor.dtype), " ",
          shape_text(tensor.shape));
}

using Order = std::vector<const SafetensorsEntry*>;

// Wide elements first: then every tensor is aligned to its element, as the data begins at a multiple of 8.
Order file_order(std::span<const SafetensorsEntry> tensors) {
  Order order;
  std::vector<std::string_view> names;
  for (const SafetensorsEntry& tensor : tensors) {
    check(tensor);
    order.push_back(&tensor);
    names.emplace_back(tensor.name);
  }
  const std::optional<std::string_view> twice = json::first_duplicate(std::move(names));
  require(!twice.has_value(), "write_safetensors: ", twice.value_or(""), " is given twice");
  // Ties keep the caller's order, that of the addresses. (clang 19 rejects libstdc++ 12's stable_sort.)
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
    const Index x = size_of(a->dtype), y = size_of(b->dtype);
    return x > y || (x == y && a < b);
  });
  return order;
}

std::string header_text(const Order& order, const SafetensorsMetadata& metadata) {
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) text += str(json_text(key), ':', json_text(value), ',');
    text.back() = '}';
    text += ',';
  }
  std::size_t begin = 0;
  for (const SafetensorsEntry* tensor : order) {
    const std::size_t end = begin + tensor->data.size();
    text += str(json_text(tensor->name), ":{\"dtype\":\"", name_of(tensor->dtype),
                "\",\"shape\":", shape_text(tensor->shape), ",\"data_offsets\":[", begin, ",", end, "]},");
    begin = end;
  }
  if (text.back() == ',') text.pop_back();
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  return text;
}

}  // namespace

void write_safetensors(const std::filesystem::path& path, std::span<const SafetensorsEntry> tensors,
                       const SafetensorsMetadata& metadata) {
  const Order order = file_order(tensors);
  const std::string header = header_text(order, metadata);
  require(header.size() <= static_cast<std::size_t>(kMaxSafetensorsHeader), "write_safetensors: header of ",
          header.size(), " bytes, expected at most ", kMaxSafetensorsHeader);
  std::array<std::byte, 8> length;
  for (std::size_t i = 0; i < 8; ++i) length[i] = static_cast<std::byte>(std::uint64_t{header.size()} >> (8 * i));

  AtomicFileWriter file(path);
  file.write(length);
  file.write(std::as_bytes(std::span(header)));
  for (const SafetensorsEntry* tensor : order) file.write(tensor->data);
  file.commit();
}

}  // namespace mixtral
