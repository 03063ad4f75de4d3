// What a checkpoint format is to who opens a checkpoint: each loader has one, src/io/checkpoint.cpp the list.
#pragma once

#include <filesystem>
#include <string_view>

#include "mixtral/io/checkpoint.hpp"

namespace mixtral {

// What to do about a tensor that a checkpoint lacks: only a head can be done without.
inline std::string_view advice_without(TensorKind kind) noexcept {
  return kind == TensorKind::kHead ? ": without one it opens for embeddings alone (Head::kNone, MIXTRAL_HEAD_NONE)"
                                   : "";
}

struct CheckpointFormat {
  // Whether what is at `path` is to be read in this format. Looks at names and first bytes, no further. Throws
  // Error(kIo).
  bool (*recognises)(const std::filesystem::path& path);
  Checkpoint (*load)(const std::filesystem::path& path, const LoadOptions& options);
  // The files of the tokenizer, without looking at weights; null: they lie beside them. Throws what load() does.
  std::vector<EmbeddedFile> (*files)(const std::filesystem::path& path);
  // The configuration's; weights need not be there where they are other files. Throws what load() does.
  Index (*vocab_size)(const std::filesystem::path& path);
};

extern const CheckpointFormat kGgufFormat;          // gguf_checkpoint.cpp
extern const CheckpointFormat kPackedFormat;        // packed.cpp
extern const CheckpointFormat kHuggingFaceFormat;   // huggingface.cpp
extern const CheckpointFormat kConsolidatedFormat;  // consolidated.cpp

}  // namespace mixtral
