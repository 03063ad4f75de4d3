// Opens safetensors files and turns their tensors into the weights of a model.
#include "io/catalog.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <system_error>
#include <utility>

#include "core/json.hpp"
#include "io/finite.hpp"
#include "mixtral/core/error.hpp"

namespace mixtral {
namespace {

constexpr Index kMaxIndexBytes = Index{16} << 20;  // Mixtral 8x22B's has 0.2 MB

const SafetensorsFile& open_file(Catalog& catalog, const std::filesystem::path& path) {
  return *catalog.files->emplace_back(std::make_unique<const SafetensorsFile>(path));
}

void sort_by_name(Catalog& catalog) {
  std::sort(catalog.tensors.begin(), catalog.tensors.end(),
            [](const auto& a, const auto& b) { return a.entry->name < b.entry->name; });
}

// Only a plain name: the index must not lead out of its directory.
void require_plain_name(const std::string& shard, const std::string& where) {
  const bool plain = !shard.empty() && shard != "." && shard != ".." &&
                     shard.find_first_of(std::string_view("/\\:\0", 4)) == std::string::npos;
  require(plain, ErrorCode::kBadFormat, where, ": shard ", json::quote(shard), " is not a plain file name");
}

// Of "model.layers.3.mlp.gate.weight", or of "layers.3.feed_forward.gate.weight": 3.
std::optional<Index> layer_of(std::string_view name) noexcept {
  constexpr std::string_view kModel = "model.", kLayers = "layers.";
  if (name.starts_with(kModel)) name.remove_prefix(kModel.size());
  if (!name.starts_with(kLayers)) return std::nullopt;
  name.remove_prefix(kLayers.size());
  Index layer = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  const bool found = error == std::errc() && end != name.data() + name.size() && *end == '.' && layer >= 0;
  return found ? std::optional(layer) : std::nullopt;
}

void require_plain(const Catalog& catalog) {
  const Catalog::Tensor* other = find_not_plain(catalog);
  if (other != nullptr)
    fail(ErrorCode::kUnsupported, label(*other), ": dtype ", name_of(other->entry->dtype),
         ", expected F32, F16 or BF16");
}

// Before tensors are missed, or left over, one by one.
void require_layers(const Catalog& catalog, Index n_layers, const std::filesystem::path& config_path) {
  const Catalog::Tensor* last = nullptr;
  Index n = 0;
  for (const Catalog::Tensor& tensor : catalog.tensors) {
    const std::optional<Index> layer = tensor.used ? std::nullopt : layer_of(tensor.entry->name);
    if (layer && *layer >= n) n = *layer + 1, last = &tensor;
  }
  if (n == n_layers) return;
  fail(ErrorCode::kBadFormat, config_path.string(), ": the number of layers is ", n_layers, ", the tensors have ", n,
       last == nullptr ? "" : ": the last is of " + json::quote(last->entry->name));
}

void require_all_used(const Catalog& catalog, const std::filesystem::path& config_path) {
  for (const Catalog::Tensor& tensor : catalog.tensors) {
    require(tensor.used, ErrorCode::kUnsupported, label(tensor), ": the model of ", config_path.filename().string(),
            " has no place for it");
  }
}

std::vector<CheckpointTensor> list_tensors(const Catalog& catalog) {
  std::vector<CheckpointTensor> list;
  for (const auto& [entry, file, used] : catalog.tensors) {
    list.push_back({entry->name, std::filesystem::path(file->name()).filename().string(), name_of(entry->dtype),
                    entry->shape, static_cast<Index>(entry->data.size())});
  }
  return list;
}

}  // namespace

std::string label(const Catalog::Tensor& tensor) {
  return str(tensor.file->name(), ": tensor ", json::quote(tensor.entry->name));
}

const Catalog::Tensor* find_not_plain(const Catalog& catalog) noexcept {
  const auto found = std::find_if(catalog.tensors.begin(), catalog.tensors.end(),
                                  [](const auto& t) { return !t.used && !is_weight(t.entry->dtype); });
  return found == catalog.tensors.end() ? nullptr : &*found;
}

// In double, which cannot overflow here.
void require_room(const ModelConfig& c, const std::string& where, double bytes, double least_bytes) {
  const auto real = [](Index n) { return static_cast<double>(n); };
  const double attention = 2 * real(c.dim) * real(c.head_dim) * real(c.n_heads + c.n_kv_heads);
  const double expert = 3 * real(c.dim) * real(c.hidden_dim);
  const double layer = 2 * real(c.dim) + attention + real(c.n_experts) * (real(c.dim) + expert);
  const double vocabulary = real(c.vocab_size) * real(c.dim) * (c.has_own_head() ? 2 : 1);
  const double claimed = vocabulary + real(c.n_layers) * layer + real(c.dim);
  require(least_bytes * claimed <= bytes, ErrorCode::kBadFormat, where, ": claims ", claimed, " parameters (dim ",
          c.dim, ", hidden_dim ", c.hidden_dim, ", ", c.n_layers, " layers, ", c.n_experts, " experts, vocabulary ",
          c.vocab_size, "; what is not given means that of Mixtral), the tensors hold ", bytes, " bytes");
}

void require_valid(const ModelConfig& config, const std::string& where) {
  try {
    config.validate();
  } catch (const Error& error) {
    fail(ErrorCode::kBadFormat, where, ": ", error.what());
  }
}

Catalog::Tensor* Catalog::find(std::string_view name) noexcept {
  const auto found = std::lower_bound(tensors.begin(), tensors.end(), name,
                                      [](const Tensor& t, std::string_view n) { return t.entry->name < n; });
  return found != tensors.end() && found->entry->name == name ? &*found : nullptr;
}

void Catalog::drop(std::string_view name) noexcept {
  std::erase_if(tensors, [&](const Tensor& tensor) { return tensor.entry->name == name; });
}

Catalog open_files(std::span<const std::filesystem::path> paths) {
  Catalog catalog;
  for (const std::filesystem::path& path : paths) {
    const SafetensorsFile& file = open_file(catalog, path);
    for (const SafetensorsEntry& entry : file.entries()) catalog.tensors.push_back({&entry, &file});
  }
  sort_by_name(catalog);
  const auto twice = std::adjacent_find(catalog.tensors.begin(), catalog.tensors.end(),
                                        [](const auto& a, const auto& b) { return a.entry->name == b.entry->name; });
  if (twice != catalog.tensors.end())
    fail(ErrorCode::kBadFormat, label(*twice), " is also in ", (twice + 1)->file->name());
  return catalog;
}

Catalog open_index(const std::filesystem::path& index_path) {
  const json::Value index = json::parse_file(index_path, kMaxIndexBytes);
  const json::ObjectReader reader(index, index_path.string());
  Catalog catalog;
  std::map<std::string_view, const SafetensorsFile*> opened;
  for (const json::Member& member : reader.object("weight_map")) {
    const auto* shard = member.value.get<std::string>();
    const std::string where = str(reader.where(), ": weight_map: ", json::quote(member.key));
    require(shard != nullptr, ErrorCode::kBadFormat, where, " is ", json::describe(member.value),
            ", expected a file name");
    require_plain_name(*shard, where);
    const SafetensorsFile*& file = opened[*shard];
    if (file == nullptr) file = &open_file(catalog, index_path.parent_path() / *shard);
    const SafetensorsEntry* entry = file->find(member.key);
    require(entry != nullptr, ErrorCode::kBadFormat, where, " is not in ", json::quote(*shard));
    catalog.tensors.push_back({entry, file});
  }
  sort_by_name(catalog);
  return catalog;
}

void require_shape(const Catalog::Tensor& tensor, std::span<const Index> shape) {
  const SafetensorsEntry& entry = *tensor.entry;
  require(std::equal(shape.begin(), shape.end(), entry.shape.begin(), entry.shape.end()), ErrorCode::kBadFormat,
          label(tensor), ": expected ", shape_text(shape), ", file has ", shape_text(entry.shape));
}

MatrixView whole(Catalog::Tensor& tensor, const TensorSlot& slot, const Shape<2>& shape) {
  const std::span<const Index> dims(shape.dims);
  require_shape(tensor, is_vector(slot.kind) ? dims.subspan(1) : dims);
  tensor.used = true;
  return {tensor.entry->dtype, shape[0], shape[1], tensor.entry->data.data()};
}

Checkpoint assemble(const ModelConfig& config, const std::filesystem::path& config_path, Catalog& catalog,
                    FunctionRef<MatrixView(const TensorSlot&, const Shape<2>&)> find) {
  require_plain(catalog);
  require_layers(catalog, config.n_layers, config_path);
  double bytes = 0;
  for (const Catalog::Tensor& tensor : catalog.tensors) bytes += static_cast<double>(tensor.entry->data.size());
  require_room(config, config_path.string(), bytes, 2);
  Weights weights(config);
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& shape) { weights.at(slot) = find(slot, shape); });
  require_all_used(catalog, config_path);
  require_finite_routing(weights, config, config_path.parent_path().string());
  weights.own(catalog.files);
  return {{config, std::move(weights)}, list_tensors(catalog), {}, {}, true, {}};
}

}  // namespace mixtral
