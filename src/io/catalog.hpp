// The tensors of all safetensors files of one checkpoint: what the loaders of such checkpoints share.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/function_ref.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/io/safetensors.hpp"

namespace mixtral {

// Sorted by name; no name comes twice.
struct Catalog {
  struct Tensor {
    const SafetensorsEntry* entry;
    const SafetensorsFile* file;
    bool used = false;
  };
  using Files = std::vector<std::unique_ptr<const SafetensorsFile>>;

  // Behind pointers: the entries stay where they are, and the mappings live as long as the weights.
  std::shared_ptr<Files> files = std::make_shared<Files>();
  std::vector<Tensor> tensors;

  Tensor* find(std::string_view name) noexcept;
  // As if no file had it.
  void drop(std::string_view name) noexcept;
};

// The tensors of all these files. Throws Error(kBadFormat) on a name that two of them have.
Catalog open_files(std::span<const std::filesystem::path> paths);

// The shards of an index. Tensors that it does not name are not seen: it is the list of the checkpoint's contents.
Catalog open_index(const std::filesystem::path& index_path);

// A hostile config may claim 2^32 experts of any size: before anything is made for them, their parameters must fit into
// `bytes`, at `least_bytes` each. Every tensor has parameters, so this also bounds the loops over tensors. Throws
// Error(kBadFormat) that begins with `where`.
void require_room(const ModelConfig& config, const std::string& where, double bytes, double least_bytes);

// The same of what ModelConfig::validate() refuses and no single member says.
void require_valid(const ModelConfig& config, const std::string& where);

// The first tensor in use that is not F32, F16 or BF16; nullptr: all are.
const Catalog::Tensor* find_not_plain(const Catalog& catalog) noexcept;

// "model.safetensors: tensor "model.norm.weight"", with the directory.
std::string label(const Catalog::Tensor& tensor);

// Throws Error(kBadFormat) unless the tensor has this shape.
void require_shape(const Catalog::Tensor& tensor, std::span<const Index> shape);

// The tensor as the whole of a slot.
MatrixView whole(Catalog::Tensor& tensor, const TensorSlot& slot, const Shape<2>& shape);

// The model of `config`, which `config_path` described, from the weights that `find` gives for each slot. `find`
// marks the tensors it uses; tensors that it need not look at are marked before. Those that are left over are refused:
// biases, adapters or more layers would silently change what the model computes.
Checkpoint assemble(const ModelConfig& config, const std::filesystem::path& config_path, Catalog& catalog,
                    FunctionRef<MatrixView(const TensorSlot&, const Shape<2>&)> find);

}  // namespace mixtral
