// The GGUF files of one model: where each of its tensors lies.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/dtype.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/io/gguf.hpp"
#include "mixtral/model/config.hpp"
#include "mixtral/model/weights.hpp"

namespace mixtral {

// What a slot's tensor is called; what that of all experts of the layer is, for an expert's slot.
struct GgufNames {
  std::string own, merged;
};
GgufNames gguf_names(const TensorSlot& slot);

// A matrix in a type of GGUF's, row-major.
struct GgufMatrix {
  GgmlType type = GgmlType::kF32;
  Index rows = 0, cols = 0;
  const std::byte* data = nullptr;
  std::string_view tensor;  // its name

  Index row_bytes() const noexcept { return bytes_of(type, cols); }
  Index bytes() const noexcept { return rows * row_bytes(); }
  Index float_bytes() const noexcept { return rows * cols * static_cast<Index>(sizeof(float)); }
  // F32, F16 and BF16 are used where they lie.
  bool is_dense() const noexcept;
  MatrixView dense() const noexcept;
};

class GgufFiles {
 public:
  // Opens the file, and the others if it is the first of a split one. Throws what GgufFile throws; Error(kNotFound)
  // that names a file that is missing, Error(kBadFormat) if the parts do not belong together.
  explicit GgufFiles(const std::filesystem::path& first);

  // The one with the keys.
  const GgufFile& head() const noexcept { return *files_.front(); }
  // The model's, checked against the tensors' shapes. Throws what read_gguf_config() throws.
  ModelConfig read_config() const;
  // Where a slot's weights are: in a tensor of their own, or, as an expert's, in that of all experts of the layer.
  // Throws Error(kBadFormat) with names and shapes if there is none, or it has another shape.
  GgufMatrix find(const TensorSlot& slot, const Shape<2>& shape, const ModelConfig& config) const;
  // Throws Error(kUnsupported) that names a tensor that is no part of such a model.
  void require_known(const ModelConfig& config) const;

  // The tensors of the files, without a head that the model does without.
  std::vector<CheckpointTensor> list(const ModelConfig& config) const;

 private:
  const GgufTensor* find_tensor(std::string_view name) const noexcept;

  std::vector<std::unique_ptr<const GgufFile>> files_;
};

}  // namespace mixtral
