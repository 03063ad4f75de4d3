// Adds tokens to a vocabulary as its files list them.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

#include "core/json.hpp"
#include "mixtral/text/vocabulary.hpp"

namespace mixtral {

class AddedTokenList {
 public:
  // `vocabulary` has the model's own pieces; what it says about added tokens is forgotten. `source` begins every
  // message.
  AddedTokenList(Vocabulary& vocabulary, std::string_view source);

  // Whether `content` is one of the model's own pieces or was added, and its id; -1: neither.
  TokenId find(std::string_view content) const noexcept;

  // Adds a token with the id that the file gives it. A piece of the model's own that has another id, an id that is
  // another piece's, and a token that comes twice are refused: Error(kBadFormat).
  void add(const std::string& content, TokenId id, AddedToken token);

  // The settings "special", "lstrip", ... of one token: `token` is {"content": ..., ...}.
  static AddedToken read_flags(const json::ObjectReader& token);
  // An id in a file. Throws Error(kBadFormat).
  static TokenId read_id(const json::Value& value, std::string_view content, std::string_view source);

 private:
  Vocabulary& v_;
  std::string_view source_;
  Index n_own_;
  std::unordered_map<std::string, TokenId> ids_;  // by piece
  std::unordered_set<TokenId> added_;
};

}  // namespace mixtral
