// Runs of byte pieces become characters here. As in SentencePiece, any other piece ends a run, and each byte
// that begins no character becomes U+FFFD.
#include "mixtral/text/stream_decoder.hpp"

#include "mixtral/core/utf8.hpp"

namespace mixtral {

// Takes the complete characters off the front of the pending bytes; `all`: the rest, too, as U+FFFD.
std::string StreamDecoder::take_pending(bool all) {
  std::string text;
  std::size_t used = 0;
  while (used < pending_.size()) {
    const std::string_view rest = std::string_view(pending_).substr(used);
    const int length = utf8_char_length(rest);
    if (length == kUtf8Cut && !all) break;
    text += length > 0 ? rest.substr(0, static_cast<std::size_t>(length)) : kReplacementCharacter;
    used += length > 0 ? static_cast<std::size_t>(length) : 1;
  }
  pending_.erase(0, used);
  return text;
}

std::string StreamDecoder::push(TokenId id) {
  std::string_view bytes = tokenizer_.token_bytes(id);
  const Vocabulary& vocabulary = tokenizer_.vocabulary();
  const bool silent = bytes.empty();  // a special token, or no piece at all
  const PieceType type = silent ? PieceType::kControl : vocabulary.types[static_cast<std::size_t>(id)];
  if (type == PieceType::kByte) {
    pending_ += bytes;
    at_start_ = false;
    return take_pending(false);
  }
  std::string text = take_pending(true);
  if (type == PieceType::kControl) return text;
  const bool may_have_prefix =
      at_start_ && vocabulary.space_prefix != SpacePrefix::kNone && type != PieceType::kUnknown;
  if (may_have_prefix && vocabulary.pieces[static_cast<std::size_t>(id)].starts_with(kSpaceSymbol))
    bytes.remove_prefix(1);
  at_start_ = false;
  return text += bytes;
}

std::string StreamDecoder::flush() {
  at_start_ = true;
  return take_pending(true);
}

}  // namespace mixtral
