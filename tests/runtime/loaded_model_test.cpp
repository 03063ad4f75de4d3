#include "mixtral/runtime/loaded_model.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "mixtral/core/error.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/session.hpp"
#include "support/consolidated_files.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"
#include "support/small_checkpoint.hpp"

using namespace mixtral;
using test::error_of;
using test::names;
using test::TempDir;

TEST_CASE("a consolidated directory with a numbered tokenizer opens as a whole") {
  const TempDir dir;
  test::write_dir(dir.path(), test::consolidated(test::read_dir(test::tiny_dir())));
  CHECK_FALSE(LoadedModel(dir.path()).tokenizer.has_value());
  CHECK(error_of([&] { LoadedModel(dir.path()).require_tokenizer(); }).code() == ErrorCode::kNotFound);
  std::filesystem::copy_file(test::tiny_dir() / "tokenizer.model", dir / "tokenizer.model.v3");
  const LoadedModel opened(dir.path());
  CHECK(opened.path == dir.path());
  CHECK(opened.config().rope_pairing == RopePairing::kInterleaved);
  CHECK(opened.require_tokenizer().vocabulary().size() == opened.config().vocab_size);
}

TEST_CASE("a tokenizer with more pieces than the model loads, with a note, and what would use them is refused") {
  const TempDir dir;
  test::write_dir(dir.path(), test::read_dir(test::golden_dir() / "models/A"));
  std::filesystem::copy_file(test::golden_dir() / "tokenizer/tokenizer_1/tokenizer.model", dir / "tokenizer.model");
  const LoadedModel opened(dir.path());
  REQUIRE(opened.checkpoint.notes.size() == 1);
  CHECK(opened.checkpoint.notes[0].ends_with(
      "the tokenizer has 1024 pieces, the model 512: it refuses the ids from there on"));
  const KernelTable table = make_table(Isa::kReference);
  SerialExecutor executor;
  const LoadedModel loaded(opened.model(), table, executor);
  Session session(loaded);
  const std::vector<TokenId> ids = opened.require_tokenizer().encode("a");
  CHECK(names(error_of([&] { session.feed(TokenId{700}); }), "token 700 at index 0 is outside the vocabulary of 512"));
  session.feed(ids);
  session.eval();
  CHECK(session.logits().size() == 512);
}

namespace {

// The tiny model's files, and a tokenizer with two more tokens; rows for four more.
void write_chatml_model(const TempDir& dir, const std::string& eos, const std::string& chat_template) {
  ModelConfig config = test::small_checkpoint_config(4100);
  const test::RandomModel random(config);
  write_huggingface(dir.path(), random.model.config, random.model.weights);
  auto document = test::read_json(test::tiny_dir() / "tokenizer.json");
  int id = 4096;
  for (const char* content : {"<|im_start|>", "<|im_end|>"}) {
    document["added_tokens"].push_back({{"id", id++}, {"content", content}, {"special", true}});
  }
  test::write_text(dir / "tokenizer.json", document.dump());
  auto settings = test::read_json(test::tiny_dir() / "tokenizer_config.json");
  settings["eos_token"] = eos;
  settings["chat_template"] = chat_template;
  test::write_text(dir / "tokenizer_config.json", settings.dump());
}

}  // namespace

TEST_CASE("what ends a sequence is what any file names, each once, and ChatML's mark") {
  using Ids = std::vector<TokenId>;
  const TempDir dir;
  write_chatml_model(dir, "<|im_end|>", "[INST]");
  CHECK(LoadedModel(dir.path()).config().eos_ids == Ids{2, 4097});
  write_chatml_model(dir, "</s>", "[INST]");
  CHECK(LoadedModel(dir.path()).config().eos_ids == Ids{2});
  write_chatml_model(dir, "</s>", "<|im_start|>");
  CHECK(LoadedModel(dir.path()).config().eos_ids == Ids{2, 4097});
  test::write_text(dir / "generation_config.json", R"({"eos_token_id": [5, 2]})");
  CHECK(LoadedModel(dir.path()).config().eos_ids == Ids{2, 5, 4097});
  write_chatml_model(dir, "<none>", "{{ unknown }}");
  CHECK(LoadedModel(dir.path()).config().eos_ids == Ids{2, 5});
}

TEST_CASE("the style is the template's; a template of no known style does not keep the model from opening") {
  const TempDir dir;
  write_chatml_model(dir, "</s>", "<|im_start|>");
  CHECK(LoadedModel(dir.path()).chat_style().style == ChatStyle::kChatMl);
  test::write_text(dir / "chat_template.jinja", "{{ '[INST]' }}");
  CHECK(LoadedModel(dir.path()).chat_style().style == ChatStyle::kV1);
  test::write_text(dir / "chat_template.jinja", "{{ '<|user|>' }}");
  const LoadedModel opened(dir.path());
  const Error error = error_of([&] { opened.chat_style(); });
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(names(error, "it begins \"{{ '<|user|>' }}\""));
}

TEST_CASE("a template that cannot be read is noted, and the model opens") {
  const TempDir dir;
  write_chatml_model(dir, "</s>", "");
  test::write_text(dir / "chat_template.json", R"({"chat_template": 5})");
  const LoadedModel opened(dir.path());
  REQUIRE(opened.checkpoint.notes.size() == 1);
  CHECK(opened.checkpoint.notes[0].ends_with("chat_template is 5, expected a string"));
  CHECK(error_of([&] { opened.chat_style(); }).code() == ErrorCode::kUnsupported);
}

TEST_CASE("of several templates the one called default counts, without it the first") {
  const TempDir dir;
  write_chatml_model(dir, "</s>", "");
  auto settings = test::read_json(dir / "tokenizer_config.json");
  settings["chat_template"] = {{{"name", "tool_use"}, {"template", "<|im_start|>"}},
                               {{"name", "default"}, {"template", "[INST]"}}};
  test::write_text(dir / "tokenizer_config.json", settings.dump());
  CHECK(LoadedModel(dir.path()).chat_template == "[INST]");
  settings["chat_template"].erase(1);
  test::write_text(dir / "tokenizer_config.json", settings.dump());
  CHECK(LoadedModel(dir.path()).chat_template == "<|im_start|>");
  test::write_text(dir / "chat_template.json", R"({"chat_template": "from json"})");
  CHECK(LoadedModel(dir.path()).chat_template == "from json");
}

TEST_CASE("open_tokenizer() needs no weights and knows the rows of the model") {
  const TempDir dir;
  write_chatml_model(dir, "</s>", "");
  std::filesystem::remove(dir / "model.safetensors");
  CHECK(open_tokenizer(dir.path()).vocabulary().n_ids == 4103);
  CHECK(open_tokenizer(dir.path()).decode(std::vector<TokenId>{1, 4102}).empty());
  test::write_text(dir / "config.json", "{}");
  CHECK(open_tokenizer(dir.path()).vocabulary().size() == 4098);
}
