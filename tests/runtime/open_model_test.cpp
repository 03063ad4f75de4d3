#include "mixtral/runtime/open_model.hpp"

#include <doctest/doctest.h>

#include "mixtral/core/error.hpp"
#include "support/consolidated_files.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"

using namespace mixtral;
using test::error_of;
using test::names;
using test::TempDir;

TEST_CASE("a consolidated directory with a numbered tokenizer opens as a whole") {
  const TempDir dir;
  test::write_dir(dir.path(), test::consolidated(test::read_dir(test::tiny_dir())));
  CHECK_FALSE(open_model(dir.path()).tokenizer.has_value());
  CHECK(error_of([&] { open_model(dir.path()).require_tokenizer(); }).code() == ErrorCode::kNotFound);
  std::filesystem::copy_file(test::tiny_dir() / "tokenizer.model", dir / "tokenizer.model.v3");
  const OpenedModel opened = open_model(dir.path());
  CHECK(opened.path == dir.path());
  CHECK(opened.model.config.rope_pairing == RopePairing::kInterleaved);
  CHECK(opened.require_tokenizer().vocabulary().size() == opened.model.config.vocab_size);
}

TEST_CASE("a tokenizer with more pieces than the model is refused with both numbers") {
  const TempDir dir;
  test::write_dir(dir.path(), test::read_dir(test::golden_dir() / "models/A"));
  std::filesystem::copy_file(test::golden_dir() / "tokenizer/tokenizer_1/tokenizer.model", dir / "tokenizer.model");
  const Error error = error_of([&] { open_model(dir.path()); });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, "the tokenizer has 1024 pieces, the model 512"));
}
