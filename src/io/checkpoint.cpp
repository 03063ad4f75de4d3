// Which loader a checkpoint needs. A further format is one more line in load_checkpoint().
#include "mixtral/io/checkpoint.hpp"

#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/io/consolidated.hpp"
#include "mixtral/io/huggingface.hpp"

namespace mixtral {
namespace {

bool has_huggingface_weights(const std::filesystem::path& dir) {
  return may_exist(dir / "model.safetensors") || may_exist(dir / "model.safetensors.index.json");
}

}  // namespace

Checkpoint load_checkpoint(const std::filesystem::path& dir) {
  const bool has_config = may_exist(dir / "config.json"), has_params = may_exist(dir / "params.json");
  if (has_config && (!has_params || has_huggingface_weights(dir))) return load_huggingface(dir);
  if (has_params) return load_consolidated(dir);
  fail(ErrorCode::kNotFound, dir.string(), ": neither config.json nor params.json exists");
}

}  // namespace mixtral
