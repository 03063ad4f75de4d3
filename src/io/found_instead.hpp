// What a directory has in the place of the files that a loader looked for.
#pragma once

#include <filesystem>
#include <string>

namespace mixtral {

// The end of a message: "; it has pytorch_model.bin, which must be converted to safetensors first". Empty if nothing
// there looks like a model. Never throws but for want of memory.
std::string found_instead(const std::filesystem::path& dir);

}  // namespace mixtral
