// A checkpoint on disk with a tokenizer, so small that thousands of sessions on it take seconds.
#pragma once

#include <filesystem>

#include "mixtral/io/write_huggingface.hpp"
#include "support/models.hpp"
#include "support/sentencepiece_model.hpp"
#include "support/temp_dir.hpp"
#include "support/tokenizer_files.hpp"

namespace mixtral::test {

// With control pieces of chat and, if they are not too many, byte pieces.
inline Vocabulary small_checkpoint_vocabulary(bool with_bytes) {
  Vocabulary v = small_vocabulary({"[INST]", "[/INST]", "a", "b", "ab", "[", "]", "/", "I", "N", "S", "T",
                                   "\xE2\x96\x81"
                                   "a"});
  if (with_bytes) add_byte_pieces(v);
  v.types[4] = v.types[5] = PieceType::kControl;
  return v;
}

// With a page border inside the context, and ids beyond the pieces.
inline ModelConfig small_checkpoint_config(Index n_pieces) {
  ModelConfig c;
  c.dim = 16;
  c.hidden_dim = 8;
  c.n_layers = 2;
  c.n_heads = 2;
  c.n_kv_heads = 1;
  c.head_dim = 8;
  c.n_experts = 4;
  c.n_experts_per_tok = 2;
  c.vocab_size = n_pieces + 3;
  c.max_positions = 40;
  return c;
}

inline void write_small_checkpoint(const std::filesystem::path& dir, bool with_bytes = true) {
  const Vocabulary v = small_checkpoint_vocabulary(with_bytes);
  const RandomModel random(small_checkpoint_config(v.size()));
  write_huggingface(dir, random.model.config, random.model.weights);
  write_text(dir / "tokenizer.model", sentencepiece_model_bytes(v));
}

}  // namespace mixtral::test
