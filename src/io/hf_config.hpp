// config.json and generation_config.json of Hugging Face checkpoints.
#pragma once

#include <filesystem>

#include "mixtral/model/config.hpp"

namespace mixtral {

// Reads `dir`/config.json, and the end-of-sequence ids of `dir`/generation_config.json if it exists. Errors as
// load_huggingface(); the result is valid.
ModelConfig read_hf_config(const std::filesystem::path& dir);

}  // namespace mixtral
