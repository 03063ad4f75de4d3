// Writing a model as a GGUF file, which other programs open, too.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "mixtral/io/ggml_type.hpp"
#include "mixtral/io/packed.hpp"
#include "mixtral/ops/context.hpp"

namespace mixtral {

// How each kind of matrix is written: kF16, kQ8_0 or kQ4_0. Routers and norms are F32. The embedding of a tied model
// has the head's type.
struct GgufFormats {
  GgmlType experts = GgmlType::kQ8_0, attention = GgmlType::kQ8_0, embedding = GgmlType::kQ8_0, head = GgmlType::kQ8_0;

  // All in one type, but for the head of kQ4_0, which is kQ8_0: its errors go straight into the logits, and it is a
  // small part of such a model.
  static GgufFormats all(GgmlType type) noexcept {
    return {type, type, type, type == GgmlType::kQ4_0 ? GgmlType::kQ8_0 : type};
  }
};

struct GgufOptions {
  GgufFormats formats;
  std::string name;       // general.name
  std::string tokenizer;  // its keys: what gguf_tokenizer() gives (text/vocabulary_files.hpp); empty: none
  // Bytes that are made, of all; once more when all are on the disk and the file is about to appear. What it throws
  // ends the writing.
  std::function<void(Index done, Index all)> progress;
};

// Writes `path`, GGUF version 3 of architecture "llama", in place of whatever was there, once it is whole; on any error
// `path` is as it was. The experts of a layer are merged into three tensors, the rows of q and k are in the order of
// interleaved RoPE. Two matrices at a time are in memory: one is written while the next is made. All workers of the
// context take part; the bytes depend on weights and options alone.
//
// Throws Error(kInvalidArgument) about another type, about rows that are no whole blocks of one (F16 has no blocks),
// and about a tokenizer of more or fewer tokens than the model has rows; Error(kUnsupported) if the source gives packed
// weights; Error(kBadFormat) about a weight that is not finite or too large for its type; all with the tensor's name
// and the numbers. Also what AtomicFileWriter throws.
void write_gguf(const std::filesystem::path& path, const OpContext& ctx, const ModelConfig& config, WeightSource source,
                const GgufOptions& options);

}  // namespace mixtral
