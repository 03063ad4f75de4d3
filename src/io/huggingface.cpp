// Finds every tensor of the model in the files of a Hugging Face directory.
#include "mixtral/io/huggingface.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "core/json.hpp"
#include "io/hf_config.hpp"
#include "io/hf_names.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/io/safetensors.hpp"

namespace mixtral {
namespace {

constexpr Index kMaxIndexBytes = Index{16} << 20;  // Mixtral 8x22B's has 0.2 MB

// The tensors of all files of a checkpoint, sorted by name.
struct Catalog {
  struct Tensor {
    const SafetensorsEntry* entry;
    const SafetensorsFile* file;
    bool used = false;
  };
  // Behind pointers: the entries stay where they are, and the mappings live as long as the weights.
  std::shared_ptr<std::vector<std::unique_ptr<const SafetensorsFile>>> files;
  std::vector<Tensor> tensors;

  Tensor* find(std::string_view name) noexcept {
    const auto found = std::lower_bound(tensors.begin(), tensors.end(), name,
                                        [](const Tensor& t, std::string_view n) { return t.entry->name < n; });
    return found != tensors.end() && found->entry->name == name ? &*found : nullptr;
  }
};

// "model.safetensors: tensor "model.norm.weight"", with the directory.
std::string label(const Catalog::Tensor& tensor) {
  return str(tensor.file->name(), ": tensor ", json::quote(tensor.entry->name));
}

const SafetensorsFile& open_file(Catalog& catalog, const std::filesystem::path& path) {
  return *catalog.files->emplace_back(std::make_unique<const SafetensorsFile>(path));
}

Catalog open_single(const std::filesystem::path& path) {
  Catalog catalog{std::make_shared<std::vector<std::unique_ptr<const SafetensorsFile>>>(), {}};
  const SafetensorsFile& file = open_file(catalog, path);
  for (const SafetensorsEntry& entry : file.entries()) catalog.tensors.push_back({&entry, &file});
  return catalog;
}

// Only a plain name: the index must not lead out of its directory.
void require_plain_name(const std::string& shard, const std::string& where) {
  const bool plain = !shard.empty() && shard != "." && shard != ".." &&
                     shard.find_first_of(std::string_view("/\\:\0", 4)) == std::string::npos;
  require(plain, ErrorCode::kBadFormat, where, ": shard ", json::quote(shard), " is not a plain file name");
}

// Tensors that the index does not name are not seen: the index is the list of the checkpoint's contents.
Catalog open_shards(const std::filesystem::path& index_path) {
  const json::Value index = json::parse_file(index_path, kMaxIndexBytes);
  const json::ObjectReader reader(index, index_path.string());
  Catalog catalog{std::make_shared<std::vector<std::unique_ptr<const SafetensorsFile>>>(), {}};
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
  std::sort(catalog.tensors.begin(), catalog.tensors.end(),
            [](const auto& a, const auto& b) { return a.entry->name < b.entry->name; });
  return catalog;
}

// Also true if the system will not say: then opening it tells the reason.
bool may_exist(const std::filesystem::path& path) {
  std::error_code ignored;
  return std::filesystem::status(path, ignored).type() != std::filesystem::file_type::not_found;
}

Catalog open_catalog(const std::filesystem::path& dir) {
  const std::filesystem::path single = dir / "model.safetensors", index = dir / "model.safetensors.index.json";
  if (may_exist(single)) return open_single(single);
  if (may_exist(index)) return open_shards(index);
  fail(ErrorCode::kNotFound, dir.string(), ": neither model.safetensors nor model.safetensors.index.json exists");
}

// A hostile config may claim 2^32 experts of any size: before anything is made for them, their parameters
// must fit into the files. Every tensor has parameters, so this also bounds the loops over tensors. In double,
// which cannot overflow here.
void require_room(const ModelConfig& c, const Catalog& catalog, const std::filesystem::path& dir) {
  const auto real = [](Index n) { return static_cast<double>(n); };
  const double attention = 2 * real(c.dim) * real(c.head_dim) * real(c.n_heads + c.n_kv_heads);
  const double expert = 3 * real(c.dim) * real(c.hidden_dim);
  const double layer = 2 * real(c.dim) + attention + real(c.n_experts) * (real(c.dim) + expert);
  const double vocabulary = real(c.vocab_size) * real(c.dim) * (c.tied_embeddings ? 1 : 2);
  const double claimed = vocabulary + real(c.n_layers) * layer + real(c.dim);
  double bytes = 0;
  for (const Catalog::Tensor& tensor : catalog.tensors) bytes += static_cast<double>(tensor.entry->data.size());
  require(2 * claimed <= bytes, ErrorCode::kBadFormat, (dir / "config.json").string(), ": claims ", claimed,
          " parameters, the tensors hold ", bytes, " bytes");
}

void require_weight(const Catalog::Tensor& tensor, std::span<const Index> shape) {
  const SafetensorsEntry& entry = *tensor.entry;
  require(is_weight(entry.dtype), ErrorCode::kUnsupported, label(tensor), ": dtype ", name_of(entry.dtype),
          ", expected F32, F16 or BF16");
  require(std::equal(shape.begin(), shape.end(), entry.shape.begin(), entry.shape.end()), ErrorCode::kBadFormat,
          label(tensor), ": expected ", shape_text(shape), ", file has ", shape_text(entry.shape));
}

// The tensor under its own name.
MatrixView whole(Catalog::Tensor& tensor, const TensorSlot& slot, const Shape<2>& shape) {
  const std::span<const Index> dims(shape.dims);
  require_weight(tensor, is_vector(slot.kind) ? dims.subspan(1) : dims);
  tensor.used = true;
  return {tensor.entry->dtype, shape[0], shape[1], tensor.entry->data.data()};
}

// One expert's matrix inside the stack of all.
MatrixView part_of_stack(Catalog::Tensor& tensor, const FusedName& fused, const TensorSlot& slot, const Shape<2>& shape,
                         Index n_experts) {
  const Index dims[] = {n_experts, fused.n_parts * shape[0], shape[1]};
  require_weight(tensor, dims);
  tensor.used = true;
  const MatrixView stack(tensor.entry->dtype, dims[0] * dims[1], dims[2], tensor.entry->data.data());
  return stack.rows_from((slot.expert * fused.n_parts + fused.part) * shape[0], shape[0]);
}

MatrixView find_weight(Catalog& catalog, const TensorSlot& slot, const Shape<2>& shape, const ModelConfig& config,
                       const std::filesystem::path& dir) {
  const std::string name = hf_name(slot);
  if (Catalog::Tensor* tensor = catalog.find(name)) return whole(*tensor, slot, shape);
  const FusedName fused = hf_fused_name(slot);
  if (Catalog::Tensor* tensor = catalog.find(fused.name)) {
    return fused.stacked ? part_of_stack(*tensor, fused, slot, shape, config.n_experts) : whole(*tensor, slot, shape);
  }
  fail(ErrorCode::kBadFormat, dir.string(), ": no tensor ", name, fused.name.empty() ? "" : " and no ", fused.name);
}

// A tensor without a place would silently change what the model computes: biases, adapters, more layers.
void require_all_used(const Catalog& catalog, const ModelConfig& config) {
  for (const Catalog::Tensor& tensor : catalog.tensors) {
    require(tensor.used || hf_ignorable(tensor.entry->name, config.tied_embeddings), ErrorCode::kUnsupported,
            label(tensor), ": the model of config.json has no place for it");
  }
}

std::vector<CheckpointTensor> list_tensors(const Catalog& catalog) {
  std::vector<CheckpointTensor> list;
  for (const auto& [entry, file, used] : catalog.tensors) {
    list.push_back({entry->name, std::filesystem::path(file->name()).filename().string(), entry->dtype, entry->shape,
                    static_cast<Index>(entry->data.size())});
  }
  return list;
}

}  // namespace

Checkpoint load_huggingface(const std::filesystem::path& dir) {
  const ModelConfig config = read_hf_config(dir);
  Catalog catalog = open_catalog(dir);
  require_room(config, catalog, dir);

  Weights weights(config);
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    weights.at(slot) = find_weight(catalog, slot, shape, config, dir);
  });
  require_all_used(catalog, config);
  weights.storage = catalog.files;
  return {{config, std::move(weights)}, list_tensors(catalog)};
}

}  // namespace mixtral
