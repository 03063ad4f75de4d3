// Finds every tensor of the model in the files of a Hugging Face directory.
#include "mixtral/io/huggingface.hpp"

#include <string>
#include <utility>
#include <vector>

#include "core/json.hpp"
#include "io/catalog.hpp"
#include "io/format.hpp"
#include "io/found_instead.hpp"
#include "io/hf_config.hpp"
#include "io/hf_names.hpp"
#include "io/shards.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"

namespace mixtral {
namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
constexpr const char* kShards = "model-";

Catalog open_catalog(const std::filesystem::path& dir) {
  const std::filesystem::path single = dir / kSingle;
  if (may_exist(single)) return open_files({&single, 1});
  if (may_exist(dir / kIndex)) return open_index(dir / kIndex);
  const std::vector<std::filesystem::path> shards = list_numbered_shards(dir, kShards);
  if (shards.empty()) {
    fail(ErrorCode::kNotFound, dir.string(), ": neither ", kSingle, " nor ", kIndex, " exists", found_instead(dir));
  }
  require_all_shards(shards);
  return open_files(shards);
}

// Whoever widened quantised weights may have left the settings where they were.
std::vector<std::string> check_quantization(const std::string& quantization, const Catalog& catalog,
                                            const std::filesystem::path& config_path) {
  if (quantization.empty()) return {};
  if (const Catalog::Tensor* tensor = find_not_plain(catalog)) {
    fail(ErrorCode::kUnsupported, config_path.string(), ": ", quantization, ", and ", json::quote(tensor->entry->name),
         " is ", name_of(tensor->entry->dtype), ": quantised checkpoints are not supported");
  }
  return {str(quantization, " is ignored, as all tensors are F32, F16 or BF16")};
}

// One expert's matrix inside the stack of all.
MatrixView part_of_stack(Catalog::Tensor& tensor, const FusedName& fused, const TensorSlot& slot, const Shape<2>& shape,
                         Index n_experts) {
  const Index dims[] = {n_experts, fused.n_parts * shape[0], shape[1]};
  require_shape(tensor, dims);
  tensor.used = true;
  const MatrixView stack(tensor.entry->dtype, dims[0] * dims[1], dims[2], tensor.entry->data.data());
  return stack.rows_from((slot.expert * fused.n_parts + fused.part) * shape[0], shape[0]);
}

// Under this name, or that of a saved MixtralModel: without "model.".
Catalog::Tensor* find_named(Catalog& catalog, std::string_view name) {
  constexpr std::string_view kPrefix = "model.";
  Catalog::Tensor* const tensor = catalog.find(name);
  return tensor != nullptr || !name.starts_with(kPrefix) ? tensor : catalog.find(name.substr(kPrefix.size()));
}

MatrixView find_weight(Catalog& catalog, const TensorSlot& slot, const Shape<2>& shape, const ModelConfig& config,
                       const std::filesystem::path& dir) {
  const std::string name = hf_name(slot);
  if (Catalog::Tensor* tensor = find_named(catalog, name)) return whole(*tensor, slot, shape);
  const FusedName fused = hf_fused_name(slot);
  if (Catalog::Tensor* tensor = find_named(catalog, fused.name)) {
    return fused.stacked ? part_of_stack(*tensor, fused, slot, shape, config.n_experts) : whole(*tensor, slot, shape);
  }
  fail(ErrorCode::kBadFormat, dir.string(), ": no tensor ", name, fused.name.empty() ? "" : " and no ", fused.name,
       advice_without(slot.kind));
}

bool has_weights(const std::filesystem::path& dir) {
  return may_exist(dir / kSingle) || may_exist(dir / kIndex) || !list_numbered_shards(dir, kShards).empty();
}

}  // namespace

Checkpoint load_huggingface(const std::filesystem::path& dir, Head head) {
  const std::filesystem::path config_path = dir / "config.json";
  HfConfig read = read_hf_config(dir);
  ModelConfig& config = read.model;
  Catalog catalog = open_catalog(dir);
  if (head == Head::kNone) {
    config.has_head = false;
    catalog.drop(hf_name({TensorKind::kHead}));
  }
  for (Catalog::Tensor& tensor : catalog.tensors)
    tensor.used = hf_ignorable(tensor.entry->name, config.tied_embeddings);
  std::vector<std::string> notes = check_quantization(read.quantization, catalog, config_path);
  Checkpoint out = assemble(config, config_path, catalog, [&](const TensorSlot& slot, const Shape<2>& shape) {
    return find_weight(catalog, slot, shape, config, dir);
  });
  out.notes = std::move(notes);
  return out;
}

// A directory with the other format's configuration, too, and none of these weights is the other's.
const CheckpointFormat kHuggingFaceFormat{
    .recognises =
        [](const std::filesystem::path& path) {
          return may_exist(path / "config.json") && (!may_exist(path / "params.json") || has_weights(path));
        },
    .load = [](const std::filesystem::path& path,
               const LoadOptions& options) { return load_huggingface(path, options.head); },
    .files = nullptr,
    .vocab_size = [](const std::filesystem::path& path) { return read_hf_config(path).model.vocab_size; }};

}  // namespace mixtral
