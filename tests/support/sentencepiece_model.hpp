// Writes what the SentencePiece library loads: files for the reader, and the library as an oracle.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>

#include "mixtral/core/utf8.hpp"
#include "mixtral/text/vocabulary.hpp"

namespace mixtral::test {

// One message of protobuf's wire format.
class Message {
 public:
  Message& number(std::uint32_t field, std::uint64_t value) {
    varint(field << 3 | 0);
    varint(value);
    return *this;
  }
  Message& bytes(std::uint32_t field, std::string_view value) {
    varint(field << 3 | 2);
    varint(value.size());
    out_ += value;
    return *this;
  }
  Message& real(std::uint32_t field, float value) {
    varint(field << 3 | 5);
    const auto bits = std::bit_cast<std::uint32_t>(value);
    for (unsigned shift = 0; shift < 32; shift += 8) out_.push_back(static_cast<char>(bits >> shift));
    return *this;
  }
  const std::string& text() const noexcept { return out_; }

 private:
  void varint(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_.push_back(static_cast<char>(value | 0x80));
    out_.push_back(static_cast<char>(value));
  }
  std::string out_;
};

// The ModelProto of a valid vocabulary: pieces {text 1, score 2, type 3}, trainer_spec {model_type 3, byte_fallback
// 35}, normalizer_spec {add_dummy_prefix 3, remove_extra_whitespaces 4}. It adds no space in front of a text.
inline std::string sentencepiece_model_bytes(const Vocabulary& v) {
  Message model;
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    // The library would join to a piece of score minus infinity, last of all: as a control piece it is hidden from
    // that.
    const bool hidden = v.types[id] == PieceType::kNormal && std::isinf(v.scores[id]) &&
                        static_cast<std::size_t>(utf8_char_length(v.pieces[id])) < v.pieces[id].size();
    const auto type = static_cast<std::uint64_t>(hidden ? PieceType::kControl : v.types[id]);
    model.bytes(1, Message().bytes(1, v.pieces[id]).real(2, v.scores[id]).number(3, type).text());
  }
  constexpr std::uint64_t kBpe = 2;
  model.bytes(2, Message().number(3, kBpe).number(35, v.has_bytes()).text());
  model.bytes(3, Message().number(3, 0).number(4, 0).text());
  return model.text();
}

}  // namespace mixtral::test
