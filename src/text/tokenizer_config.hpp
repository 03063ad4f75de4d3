// What tokenizer_config.json and the small files beside it say about a vocabulary.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "core/json.hpp"
#include "mixtral/text/vocabulary.hpp"

namespace mixtral {

// tokenizer_config.json, or nothing where there is none.
class TokenizerConfig {
 public:
  // `text` is empty or the file's contents. Throws Error(kBadFormat).
  TokenizerConfig(std::string_view text, std::string source);

  // The tokens that have a name, as "bos_token"; those of special_tokens_map.json count where this file has none of
  // that name. `map` is empty or that file's contents.
  void read_map(std::string_view map, const std::string& source);

  // Tokens that were added beside tokenizer.model: "added_tokens_decoder", without it those of added_tokens.json
  // (`added_tokens`: its contents, or empty). The rules are those of transformers' Python tokenizer. Throws
  // Error(kBadFormat | kUnsupported).
  void add_tokens(std::string_view added_tokens, const std::string& source, Vocabulary& vocabulary) const;

  // BOS, EOS and whether prompts begin with BOS. A bos or eos token that is no piece counts as none.
  void apply(Vocabulary& vocabulary) const;

  // Throws Error(kUnsupported) if the file asks for another space in front of texts than `vocabulary` has it.
  void check_prefix(const Vocabulary& vocabulary) const;

  // "chat_template": a text, or the one named "default" of a list, or the first.
  std::optional<std::string> chat_template() const;

 private:
  struct NamedToken {
    std::string name, content;
  };

  void read_named(const json::ObjectReader& from);
  const std::string* named(std::string_view name) const noexcept;
  void add_named(const char* name, const std::string& content);
  bool has_name(const std::string& content) const noexcept;

  std::string source_;
  json::Value root_{json::Object{}};
  std::vector<NamedToken> named_;
  std::unordered_set<std::string> contents_;  // theirs
};

}  // namespace mixtral
