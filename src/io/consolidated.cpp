// Finds every tensor of the model in the files of a consolidated checkpoint.
#include "mixtral/io/consolidated.hpp"

#include <vector>

#include "io/catalog.hpp"
#include "io/format.hpp"
#include "io/found_instead.hpp"
#include "io/params.hpp"
#include "io/shards.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"

namespace mixtral {
namespace {

// The first release's block_sparse_moe names are not here: its files stack the experts and transpose w2.
std::string name_in_file(const TensorSlot& slot) {
  using enum TensorKind;
  const std::string layer = str("layers.", slot.layer, ".");
  const auto expert = [&](const char* w) {
    return str(layer, "feed_forward.experts.", slot.expert, ".", w, ".weight");
  };
  switch (slot.kind) {
    case kEmbedding: return "tok_embeddings.weight";
    case kAttentionNorm: return layer + "attention_norm.weight";
    case kWq: return layer + "attention.wq.weight";
    case kWk: return layer + "attention.wk.weight";
    case kWv: return layer + "attention.wv.weight";
    case kWo: return layer + "attention.wo.weight";
    case kFfnNorm: return layer + "ffn_norm.weight";
    case kRouter: return layer + "feed_forward.gate.weight";
    case kW1: return expert("w1");
    case kW2: return expert("w2");
    case kW3: return expert("w3");
    case kFinalNorm: return "norm.weight";
    case kHead: return "output.weight";
  }
  return {};
}

Catalog open_catalog(const std::filesystem::path& dir) {
  const std::filesystem::path single = dir / "consolidated.safetensors",
                              index = dir / "consolidated.safetensors.index.json";
  if (may_exist(single)) return open_files({&single, 1});
  if (may_exist(index)) return open_index(index);
  const std::vector<std::filesystem::path> shards = list_shards(dir, "consolidated");
  if (shards.empty())
    fail(ErrorCode::kNotFound, dir.string(), ": no consolidated*.safetensors exists", found_instead(dir));
  require_all_shards(shards);
  return open_files(shards);
}

}  // namespace

Checkpoint load_consolidated(const std::filesystem::path& dir, Head head) {
  ModelConfig config = read_params(dir);
  Catalog catalog = open_catalog(dir);
  if (head == Head::kNone) {
    config.has_head = false;
    catalog.drop(name_in_file({TensorKind::kHead}));
  }
  return assemble(config, dir / "params.json", catalog, [&](const TensorSlot& slot, const Shape<2>& shape) {
    const std::string name = name_in_file(slot);
    Catalog::Tensor* tensor = catalog.find(name);
    require(tensor != nullptr, ErrorCode::kBadFormat, dir.string(), ": no tensor ", name, advice_without(slot.kind));
    return whole(*tensor, slot, shape);
  });
}

const CheckpointFormat kConsolidatedFormat{
    .recognises = [](const std::filesystem::path& path) { return may_exist(path / "params.json"); },
    .load = [](const std::filesystem::path& path,
               const LoadOptions& options) { return load_consolidated(path, options.head); },
    .files = nullptr,
    .vocab_size = [](const std::filesystem::path& path) { return read_params(path).vocab_size; }};

}  // namespace mixtral
