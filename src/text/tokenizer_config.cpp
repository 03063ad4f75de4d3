// The rules are those of transformers: PreTrainedTokenizerBase.from_pretrained() and LlamaTokenizer of
// https://github.com/huggingface/transformers.
#include "text/tokenizer_config.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <utility>

#include "mixtral/core/error.hpp"
#include "text/added_token_list.hpp"

namespace mixtral {
namespace {

using json::ObjectReader;

constexpr const char* kNames[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                  "pad_token", "cls_token", "mask_token"};

// A token is "<s>" or {"content": "<s>", ...}.
const std::string& content_of(const json::Value& value, const std::string& where) {
  if (const auto* text = value.get<std::string>()) return *text;
  require(value.get<json::Object>() != nullptr, ErrorCode::kBadFormat, where, " is ", json::describe(value),
          ", expected a string or an object");
  for (const json::Member& member : *value.get<json::Object>()) {
    if (member.key == "content" && member.value.get<std::string>() != nullptr) return *member.value.get<std::string>();
  }
  fail(ErrorCode::kBadFormat, where, ": content is missing");
}

// The key of an "added_tokens_decoder".
TokenId id_of_key(const std::string& key, const std::string& source) {
  Index id = -1;
  const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), id);
  require(error == std::errc() && end == key.data() + key.size() && id >= 0 && id < Vocabulary::kMaxPieces,
          ErrorCode::kBadFormat, source, ": added_tokens_decoder has the key ", json::quote(key),
          ", expected an id from 0 to ", Vocabulary::kMaxPieces - 1);
  return static_cast<TokenId>(id);
}

}  // namespace

TokenizerConfig::TokenizerConfig(std::string_view text, std::string source) : source_(std::move(source)) {
  if (!text.empty()) root_ = json::parse(text, source_);
  read_named(ObjectReader(root_, source_));
}

void TokenizerConfig::read_map(std::string_view map, const std::string& source) {
  if (map.empty()) return;
  const json::Value root = json::parse(map, source);
  read_named(ObjectReader(root, source));
}

void TokenizerConfig::read_named(const ObjectReader& from) {
  const bool has_additional = named("additional_special_tokens") != nullptr;
  for (const char* name : kNames) {
    const json::Value* value = named(name) == nullptr ? from.find(name) : nullptr;
    if (value != nullptr) add_named(name, content_of(*value, str(from.where(), ": ", name)));
  }
  const json::Value* const list = from.find("additional_special_tokens");
  const json::Array* const more = list == nullptr || has_additional ? nullptr : list->get<json::Array>();
  if (more == nullptr) return;
  for (const json::Value& value : *more) {
    add_named("additional_special_tokens", content_of(value, str(from.where(), ": additional_special_tokens")));
  }
}

void TokenizerConfig::add_named(const char* name, const std::string& content) {
  named_.push_back({name, content});
  contents_.insert(content);
}

const std::string* TokenizerConfig::named(std::string_view name) const noexcept {
  const auto found = std::find_if(named_.begin(), named_.end(), [&](const NamedToken& t) { return t.name == name; });
  return found == named_.end() ? nullptr : &found->content;
}

bool TokenizerConfig::has_name(const std::string& content) const noexcept { return contents_.contains(content); }

void TokenizerConfig::add_tokens(std::string_view added_tokens, const std::string& source, Vocabulary& v) const {
  const ObjectReader config(root_, source_);
  const bool legacy = config.boolean("legacy", true);
  v.added_rules = AddedTokenRules::kTransformers;
  v.prefixed_parts = legacy ? PrefixedParts::kEvery : PrefixedParts::kText;
  if (!config.boolean("add_prefix_space", true)) v.space_prefix = SpacePrefix::kNone;
  require(!config.boolean("do_lower_case", false), ErrorCode::kUnsupported, source_,
          ": do_lower_case is not supported");

  // Control pieces of the model's own are tokens whether a file lists them or not.
  const std::vector<AddedToken> own = v.added;
  const Index n_own = v.size();
  std::map<TokenId, std::pair<std::string, AddedToken>> tokens;
  for (const AddedToken& token : own) tokens[token.id] = {v.pieces[static_cast<std::size_t>(token.id)], token};
  const bool has_decoder = config.find("added_tokens_decoder") != nullptr;
  if (has_decoder) {
    for (const json::Member& member : config.object("added_tokens_decoder")) {
      const TokenId id = id_of_key(member.key, source_);
      const ObjectReader token(member.value, str(source_, ": added_tokens_decoder: ", id));
      tokens[id] = {token.string("content"), AddedTokenList::read_flags(token)};
    }
  } else if (!added_tokens.empty()) {
    const json::Value root = json::parse(added_tokens, source);
    require(root.get<json::Object>() != nullptr, ErrorCode::kBadFormat, source, ": ", json::describe(root),
            ", expected an object");
    for (const json::Member& member : *root.get<json::Object>()) {
      const TokenId id = AddedTokenList::read_id(member.value, member.key, source);
      AddedToken flags;
      flags.special = has_name(member.key);
      const auto [other, is_new] = tokens.insert_or_assign(id, std::pair(member.key, flags));
      require(is_new || id < n_own, ErrorCode::kBadFormat, source, ": id ", id, " is given twice, the second time to ",
              json::quote(member.key));
    }
  }
  AddedTokenList list(v, has_decoder ? source_ : source);
  for (auto& [id, token] : tokens) {
    token.second.named = has_name(token.first) || id == v.bos_id || id == v.eos_id || id == v.unk_id;
    token.second.special = token.second.special || token.second.named;
    list.add(token.first, id, token.second);
  }
}

void TokenizerConfig::apply(Vocabulary& v) const {
  const std::string *const bos = named("bos_token"), *const eos = named("eos_token");
  if (bos != nullptr) v.bos_id = v.find(*bos);
  if (eos != nullptr) v.eos_id = v.find(*eos);
  v.add_bos = ObjectReader(root_, source_).boolean("add_bos_token", v.add_bos);
  require(!v.add_bos || v.bos_id >= 0, ErrorCode::kBadFormat, source_, ": prompts are to begin with bos_token ",
          bos == nullptr ? "null" : json::quote(*bos), ", which is no piece");
  // What begins or ends a sequence is for nobody's text to make, whatever the file says.
  for (AddedToken& token : v.added) token.special = token.special || token.id == v.bos_id || token.id == v.eos_id;
}

void TokenizerConfig::check_prefix(const Vocabulary& v) const {
  const bool has = v.space_prefix != SpacePrefix::kNone;
  const bool wanted = ObjectReader(root_, source_).boolean("add_prefix_space", has);
  require(wanted == has, ErrorCode::kUnsupported, source_, ": add_prefix_space is ", wanted ? "true" : "false",
          ", but tokenizer.json puts ", has ? "a" : "no", " space in front of texts");
}

std::optional<std::string> TokenizerConfig::chat_template() const {
  const ObjectReader config(root_, source_);
  const json::Value* const value = config.find("chat_template");
  if (value == nullptr) return {};
  const json::Array* const list = value->get<json::Array>();
  if (list == nullptr) return config.string("chat_template");
  std::optional<std::string> chosen;
  for (const json::Value& item : *list) {
    const ObjectReader named(item, str(source_, ": chat_template"));
    if (!chosen || named.string("name") == "default") chosen = named.string("template");
  }
  return chosen;
}

}  // namespace mixtral
