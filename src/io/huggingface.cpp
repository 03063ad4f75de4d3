// Finds every tensor of the model in the files of a Hugging Face directory.
#include "mixtral/io/huggingface.hpp"

#include "io/catalog.hpp"
#include "io/hf_config.hpp"
#include "io/hf_names.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"

namespace mixtral {
namespace {

Catalog open_catalog(const std::filesystem::path& dir) {
  const std::filesystem::path single = dir / "model.safetensors", index = dir / "model.safetensors.index.json";
  if (may_exist(single)) return open_files({&single, 1});
  if (may_exist(index)) return open_index(index);
  fail(ErrorCode::kNotFound, dir.string(), ": neither model.safetensors nor model.safetensors.index.json exists");
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

}  // namespace

Checkpoint load_huggingface(const std::filesystem::path& dir) {
  const ModelConfig config = read_hf_config(dir);
  Catalog catalog = open_catalog(dir);
  for (Catalog::Tensor& tensor : catalog.tensors)
    tensor.used = hf_ignorable(tensor.entry->name, config.tied_embeddings);
  return assemble(config, dir / "config.json", catalog, [&](const TensorSlot& slot, const Shape<2>& shape) {
    return find_weight(catalog, slot, shape, config, dir);
  });
}

}  // namespace mixtral
