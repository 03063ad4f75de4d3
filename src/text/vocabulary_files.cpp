// Which files a tokenizer is read from, and which of them says what.
#include "mixtral/text/vocabulary_files.hpp"

#include <algorithm>

#include "core/json.hpp"
#include "io/gguf_tokenizer.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "text/gguf_vocabulary.hpp"
#include "text/tokenizer_config.hpp"
#include "text/tokenizer_json.hpp"

namespace mixtral {
namespace {

constexpr Index kMaxFileBytes = Index{1} << 26;  // the largest vocabularies in use take half

constexpr const char* kJsonName = "tokenizer.json";
constexpr const char* kConfigName = "tokenizer_config.json";
constexpr const char* kMapName = "special_tokens_map.json";
constexpr const char* kAddedName = "added_tokens.json";
constexpr const char* kTemplateName = "chat_template.jinja";
constexpr const char* kTemplateJsonName = "chat_template.json";

// The contents of the named file among some, and what messages call it.
class Files {
 public:
  Files(std::span<const EmbeddedFile> files, const std::string& where) : files_(files), where_(where) {}

  std::string_view get(std::string_view name) const {  // empty: not there
    for (const EmbeddedFile& file : files_) {
      if (file.name == name) return file.contents;
    }
    return {};
  }
  std::string source(const std::string& name) const { return (std::filesystem::path(where_) / name).string(); }
  // tokenizer.model, or one of Mistral's numbered ones.
  const EmbeddedFile* sentencepiece() const {
    const auto found = std::find_if(files_.begin(), files_.end(),
                                    [](const EmbeddedFile& file) { return file.name.starts_with("tokenizer.model"); });
    return found == files_.end() ? nullptr : &*found;
  }

 private:
  std::span<const EmbeddedFile> files_;
  const std::string& where_;
};

TokenizerConfig config_of(const Files& files) {
  TokenizerConfig config(files.get(kConfigName), files.source(kConfigName));
  config.read_map(files.get(kMapName), files.source(kMapName));
  return config;
}

// What a tokenizer.json beside a SentencePiece model says about added tokens wins; if it cannot be used its user is
// told.
void add_tokens(const Files& files, const TokenizerConfig& config, Vocabulary& v) {
  if (const std::string_view text = files.get(kJsonName); !text.empty()) {
    Vocabulary with_json = v;
    try {
      read_added_tokens(text, files.source(kJsonName), with_json);
      config.check_prefix(with_json);
      v = std::move(with_json);
      return;
    } catch (const Error& error) {
      v.notes.push_back(str(error.what(), "; its added tokens are left out"));
    }
  }
  config.add_tokens(files.get(kAddedName), files.source(kAddedName), v);
}

}  // namespace

std::optional<std::filesystem::path> find_tokenizer_file(const std::filesystem::path& directory) {
  for (const char* name : {"tokenizer.model", "tokenizer.model.v3", "tokenizer.model.v2", "tokenizer.model.v1",
                           kJsonName, "tekken.json"}) {
    if (may_exist(directory / name)) return directory / name;
  }
  return {};
}

std::vector<EmbeddedFile> read_tokenizer_files(const std::filesystem::path& model) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(model, ignored)) return read_embedded_files(model);
  require(may_exist(model), ErrorCode::kNotFound, model.string(), ": no such file or directory");
  std::vector<EmbeddedFile> files;
  const auto read = [&](const std::filesystem::path& path) {
    files.push_back({path.filename().string(), read_file(path, kMaxFileBytes)});
    const bool may_be_empty = path.filename() == kTemplateName;
    require(may_be_empty || !files.back().contents.empty(), ErrorCode::kBadFormat, path.string(), ": is empty");
  };
  const auto file = find_tokenizer_file(model);
  if (!file) return files;
  require(file->filename() != "tekken.json", ErrorCode::kUnsupported, file->string(),
          ": Tekken tokenizers are not supported");
  read(*file);
  for (const char* name : {kJsonName, kConfigName, kMapName, kAddedName, kTemplateName, kTemplateJsonName}) {
    if (file->filename() != name && may_exist(model / name)) read(model / name);
  }
  // As a packed file has them.
  std::sort(files.begin(), files.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return files;
}

Vocabulary parse_tokenizer_files(std::span<const EmbeddedFile> list, const std::string& where) {
  const Files files(list, where);
  if (const std::string_view gguf = files.get(kGgufTokenizerName); !gguf.empty()) {
    return parse_gguf_vocabulary(gguf, files.source(std::string(kGgufTokenizerName)));
  }
  const EmbeddedFile* const model = files.sentencepiece();
  const std::string_view json = files.get(kJsonName);
  require(model != nullptr || !json.empty(), ErrorCode::kNotFound, where,
          ": neither tokenizer.model nor tokenizer.json is there");
  const TokenizerConfig config = config_of(files);
  Vocabulary v;
  if (model != nullptr) {
    v = parse_sentencepiece_model(model->contents, files.source(model->name));
    add_tokens(files, config, v);
  } else {
    v = parse_tokenizer_json(json, files.source(kJsonName));
    config.check_prefix(v);
  }
  config.apply(v);
  v.validate(where);
  return v;
}

std::optional<std::string> find_chat_template(std::span<const EmbeddedFile> list, const std::string& where) {
  const Files files(list, where);
  if (const std::string_view gguf = files.get(kGgufTokenizerName); !gguf.empty()) {
    return find_gguf_chat_template(gguf, files.source(std::string(kGgufTokenizerName)));
  }
  if (const std::string_view text = files.get(kTemplateName); !text.empty()) return std::string(text);
  for (const char* name : {kTemplateJsonName, kConfigName}) {
    const TokenizerConfig config(files.get(name), files.source(name));
    if (auto text = config.chat_template()) return text;
  }
  return {};
}

std::string gguf_tokenizer(std::span<const EmbeddedFile> list, const std::string& where, Index n_ids,
                           std::span<const TokenId> ends, std::vector<std::string>& notes) {
  if (list.empty()) return {};
  const Files files(list, where);
  if (const std::string_view gguf = files.get(kGgufTokenizerName); !gguf.empty()) return std::string(gguf);
  Vocabulary v = parse_tokenizer_files(list, where);
  v.n_ids = n_ids;
  notes.insert(notes.end(), v.notes.begin(), v.notes.end());
  std::optional<std::string> chat_template;
  try {
    chat_template = find_chat_template(list, where);
  } catch (const Error& error) {  // only a conversation cannot be had then
    notes.push_back(error.what());
  }
  return gguf_vocabulary_file(v, chat_template, ends, where, notes);
}

Vocabulary load_vocabulary(const std::filesystem::path& model) {
  return parse_tokenizer_files(read_tokenizer_files(model), model.string());
}

}  // namespace mixtral
