// A checkpoint of which one JSON file is any text. The input's first line is the name of that file, the rest is the
// file; all others are good.
#include <array>
#include <map>
#include <string>

#include "bytes.hpp"
#include "expect.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "support/checkpoint_files.hpp"
#include "support/consolidated_files.hpp"
#include "support/golden.hpp"
#include "support/sentencepiece_model.hpp"
#include "support/tokenizer_files.hpp"
#include "vocabulary.hpp"

using namespace mixtral;

namespace {

// Directories of their own: a checkpoint of one file, of two shards, Mistral's, and those with a tokenizer.
class Checkpoints {
 public:
  Checkpoints() {
    test::Files base = test::read_dir(test::golden_dir() / "malformed_hf/_base");
    add("config.json", base);
    add("generation_config.json", base);
    add("model.safetensors.index.json", test::sharded(base, 2));
    add("params.json", test::consolidated(base));
    base["tokenizer.model"] = test::sentencepiece_model_bytes(test::small_vocabulary({"a", "b", "ab"}));
    for (const char* name : {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
                             "chat_template.json", "chat_template.jinja"}) {
      add(name, base);
    }
  }
  // The directory in which `file` is now `text`.
  const std::filesystem::path& with(std::string_view file, std::string_view text) {
    auto found = dirs_.find(file);
    if (found == dirs_.end()) found = dirs_.find("config.json");
    test::write_text(found->second / found->first, text);
    return found->second.path();
  }

 private:
  void add(const std::string& varied, const test::Files& files) { test::write_dir(dirs_[varied].path(), files); }

  std::map<std::string, test::TempDir, std::less<>> dirs_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Checkpoints checkpoints;
  const std::string_view input = fuzz::Bytes(data, size).rest();
  const std::size_t line = std::min(input.find('\n'), input.size());
  const std::string_view text = input.substr(std::min(line + 1, input.size()));
  const std::filesystem::path& dir = checkpoints.with(input.substr(0, line), text);
  try {
    const LoadedModel opened(dir);
    opened.config().validate();
    validate(opened.model().weights, opened.config());
    if (!opened.tokenizer) return 0;
    fuzz::try_tokenizer(*opened.tokenizer, text);
    (void)opened.chat_style();
  } catch (const Error& error) {
    fuzz::expect(error.code() != ErrorCode::kInternal, "a bad file is no defect of the library");
    fuzz::expect(std::string_view(error.what()).starts_with(dir.string()), "the message begins with the file");
  }
  return 0;
}
