// What every vocabulary that was accepted must do.
#pragma once

#include <string_view>

#include "expect.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/utf8.hpp"
#include "mixtral/text/tokenizer.hpp"

namespace mixtral::fuzz {

inline bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const int n = utf8_char_length(text);
    if (n <= 0) return false;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return true;
}

// Encodes and decodes `text` with the vocabulary that `parse` makes, or expects an Error.
template <class Parse>
void try_vocabulary(Parse&& parse, std::string_view text) {
  try {
    const Tokenizer tokenizer(parse());
    const std::vector<TokenId> ids = tokenizer.encode(text);
    for (const TokenId id : ids) {
      expect(id >= 0 && id < tokenizer.vocabulary().size(), "encode() gives ids of the vocabulary");
      tokenizer.token_bytes(id);
    }
    expect(is_utf8(tokenizer.decode(ids)), "decode() gives UTF-8");
  } catch (const Error& error) {
    expect(error.code() != ErrorCode::kInternal, "a bad file is no defect of the library");
  }
}

}  // namespace mixtral::fuzz
