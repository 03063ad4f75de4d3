#include "mixtral/text/text_pieces.hpp"

#include <doctest/doctest.h>

#include "mixtral/text/vocabulary_files.hpp"
#include "support/golden.hpp"

using namespace mixtral;

TEST_CASE("each token of a text is a target once, behind the tokens before it in its piece") {
  const Tokenizer tokenizer = Tokenizer::load(test::tiny_dir());
  const TokenId bos = tokenizer.vocabulary().bos_id;
  const std::string text = "RETURN VALUE\n       On success, 0 is returned; on error, -1, and errno is set.";
  const std::vector<TokenId> all = tokenizer.encode(text);
  for (const Index context : {Index{1}, Index{2}, Index{7}, static_cast<Index>(all.size()), Index{512}}) {
    std::vector<TokenId> targets;
    for (const TextPiece& piece : text_pieces(text, tokenizer, context)) {
      CHECK(static_cast<Index>(piece.inputs.size()) <= context);
      REQUIRE(piece.inputs.size() == piece.targets.size());
      CHECK(piece.inputs[0] == bos);
      for (std::size_t i = 1; i < piece.inputs.size(); ++i) CHECK(piece.inputs[i] == piece.targets[i - 1]);
      targets.insert(targets.end(), piece.targets.begin(), piece.targets.end());
    }
    CHECK(targets == all);
  }
  CHECK(text_pieces("", tokenizer, 512).empty());
  const std::vector<TextPiece> first = text_pieces(text, tokenizer, 512, 3);
  REQUIRE(first.size() == 1);
  CHECK(first[0].targets == std::vector(all.begin(), all.begin() + 3));
}

TEST_CASE("without BOS the first token of a piece has nothing before it, and is no target") {
  Vocabulary v = load_vocabulary(test::tiny_dir());
  v.add_bos = false;
  const Tokenizer tokenizer(v);
  const std::string text = "RETURN VALUE";
  const std::vector<TokenId> all = tokenizer.encode(text);
  const std::vector<TextPiece> pieces = text_pieces(text, tokenizer, 512);
  REQUIRE(pieces.size() == 1);
  CHECK(pieces[0].inputs == all);
  CHECK(pieces[0].targets == std::vector(all.begin() + 1, all.end()));
}
