// The weights of a GGUF file, one tensor or expert after the other: what pack_model() takes.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "mixtral/core/executor.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/model/config.hpp"
#include "mixtral/model/weights.hpp"

namespace mixtral {

// Whether load_checkpoint() would read this path as a GGUF file: by its name, or by its first bytes.
bool is_gguf(const std::filesystem::path& path);

class GgufWeights {
 public:
  // Opens the file, of a split one the first. `executor` must outlive this. Throws what load_checkpoint() throws.
  GgufWeights(const std::filesystem::path& path, Executor& executor,
              QuantizedImport import = QuantizedImport::kFloat32);
  ~GgufWeights();

  const ModelConfig& config() const noexcept;
  std::vector<EmbeddedFile> files() const;  // the tokenizer's
  // The type of the view that a slot gets.
  DType type_of(const TensorSlot& slot) const;
  // As load_checkpoint() would have it, with the same import. A view is valid until the first call for another layer's
  // or expert's slot: a model larger than memory passes through.
  MatrixView operator()(const TensorSlot& slot, const Shape<2>& shape);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace mixtral
