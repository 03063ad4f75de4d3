// params.json of consolidated checkpoints.
#pragma once

#include <filesystem>

#include "mixtral/model/config.hpp"

namespace mixtral {

// Reads `dir`/params.json. Errors as load_consolidated(); the result is valid.
ModelConfig read_params(const std::filesystem::path& dir);

}  // namespace mixtral
