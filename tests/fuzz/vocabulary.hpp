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

// Encodes and decodes `text`, whichever special tokens are found in it.
inline void try_tokenizer(const Tokenizer& tokenizer, std::string_view text) {
  for (const SpecialTokens special : {SpecialTokens::kAsText, SpecialTokens::kAdded, SpecialTokens::kAll}) {
    for (const std::vector<TokenId>& ids : {tokenizer.encode(text, special), tokenizer.encode_more(text, special)}) {
      for (const TokenId id : ids) {
        expect(id >= 0 && id < tokenizer.vocabulary().size(), "encode() gives ids of the vocabulary");
        tokenizer.token_bytes(id);
      }
      expect(is_utf8(tokenizer.decode(ids)), "decode() gives UTF-8");
    }
  }
}

// The same with the vocabulary that `parse` makes, or expects an Error.
template <class Parse>
void try_vocabulary(Parse&& parse, std::string_view text) {
  try {
    try_tokenizer(Tokenizer(parse()), text);
  } catch (const Error& error) {
    expect(error.code() != ErrorCode::kInternal, "a bad file is no defect of the library");
  }
}

}  // namespace mixtral::fuzz
