#include "mixtral/runtime/embedding.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "mixtral/core/file.hpp"
#include "mixtral/io/huggingface.hpp"
#include "mixtral/io/safetensors.hpp"
#include "mixtral/runtime/evaluator.hpp"
#include "support/compare.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"
#include "support/models.hpp"

using namespace mixtral;
using test::error_of;
using test::names;

namespace {

const LoadedModel& model_b() {
  static SerialExecutor executor;
  static const LoadedModel model(load_huggingface(test::golden_dir() / "models/B").model, make_table(best_isa()),
                                 executor);
  return model;
}

std::vector<TokenId> some_tokens(Index n) {
  test::Random random(601);
  return test::random_tokens(random, n, model_b().config());
}

}  // namespace

TEST_CASE("hidden rows are the golden ones, and those of a session to the bit, in any chunks") {
  const auto manifest = test::read_json(test::golden_dir() / "manifest.json");
  int cases = 0;
  for (const auto& entry : manifest.at("cases")) {
    if (entry.at("kind") != "model") continue;
    SerialExecutor executor;
    const LoadedModel model(load_huggingface(test::golden_dir() / entry.at("model").get<std::string>()).model,
                            make_table(best_isa()), executor);
    const SafetensorsFile want(test::golden_dir() / entry.at("file").get<std::string>());
    const auto ids = test::elements<std::int32_t>(want, "ids");
    SequenceTrace trace;
    Evaluator(model, DType::kF32).run(ids, {}, &trace);
    for (const Index chunk : {512, 3}) {
      Embedder embedder(model, {.chunk = chunk, .kv_dtype = DType::kF32});
      const Matrix<float> rows = embedder.hidden(ids);
      CHECK(test::excess(rows.span(), test::elements<float>(want, "final_norm"),
                         test::tolerance(manifest, "layer_output")) == 0);
      CHECK(test::same_bits(rows.span(), trace.final_norm));
      CHECK(test::same_bits(embedder.hidden(ids, 0).span(), trace.embed));
      for (std::size_t l = 0; l < trace.layers.size(); ++l) {
        CHECK(test::same_bits(embedder.hidden(ids, static_cast<Index>(l) + 1).span(), trace.layers[l].output));
      }
    }
    ++cases;
  }
  CHECK(cases == 8);
}

TEST_CASE("an embedding is the mean or the last of the rows, of length 1, whatever was read before") {
  Embedder embedder(model_b());
  const auto tokens = some_tokens(45);
  const Matrix<float> rows = embedder.hidden(tokens, 2);
  for (const Pooling pooling : {Pooling::kMean, Pooling::kLast}) {
    std::vector<double> want(static_cast<std::size_t>(rows.dim(1)), 0);
    for (Index t = pooling == Pooling::kMean ? 0 : 44; t < 45; ++t) {
      for (std::size_t k = 0; k < want.size(); ++k) want[k] += double{rows.row(t)[k]};
    }
    const double length = std::sqrt(std::inner_product(want.begin(), want.end(), want.begin(), 0.0));
    embedder.hidden(some_tokens(7));
    const std::vector<float> got = embedder.embed(tokens, pooling, 2);
    double sum = 0;
    for (std::size_t k = 0; k < got.size(); ++k) {
      CHECK(std::abs(double{got[k]} - want[k] / length) < 1e-6);
      sum += double{got[k]} * double{got[k]};
    }
    CHECK(std::abs(sum - 1) < 1e-5);
  }
  CHECK(name_of(Pooling::kMean) == "mean");
  CHECK(name_of(Pooling::kLast) == "last");
}

TEST_CASE("a model that is opened without its head has the hidden rows of the whole one, to the bit") {
  const std::filesystem::path paths[] = {test::golden_dir() / "models/A", test::golden_dir() / "models/B",
                                         test::golden_dir() / "gguf/models/K_q4_k_m.gguf",
                                         test::golden_dir() / "gguf/models/S_f16.gguf",
                                         test::golden_dir() / "gguf/models/VT_q8_0.gguf"};  // tied
  for (const std::filesystem::path& path : paths) {
    CAPTURE(path.string());
    const LoadedModel whole(path, {.threads = 1}), headless(path, {.threads = 1, .head = Head::kNone});
    CHECK_FALSE(headless.config().has_head);
    CHECK(headless.model().weights.head.data == nullptr);
    const Index head_bytes = whole.config().tied_embeddings ? 0 : whole.model().weights.head.bytes();
    CHECK(weight_bytes(headless.model()) == weight_bytes(whole.model()) - head_bytes);
    CHECK(headless.checkpoint.tensors.size() == whole.checkpoint.tensors.size() - (head_bytes > 0 ? 1 : 0));
    test::Random random(603);
    const auto tokens = test::random_tokens(random, 9, whole.config());
    Embedder a(headless), b(whole);
    CHECK(test::same_bits(a.hidden(tokens), b.hidden(tokens)));
    CHECK(a.embed(tokens) == b.embed(tokens));
    CHECK(names(error_of([&] { headless.require_head(); }), path.string() + ": opened without its head, which logits"));
    CHECK_NOTHROW(whole.require_head());
  }
}

TEST_CASE("texts and layers that are not there are refused with their numbers, and the next text is read") {
  Embedder embedder(model_b());
  const auto tokens = some_tokens(5);
  const Matrix<float> want = embedder.hidden(tokens);
  CHECK(names(error_of([&] { embedder.hidden({}); }), "no tokens"));
  CHECK(names(error_of([&] { embedder.hidden(tokens, 3); }), "layer 3, expected 0 to 2"));
  CHECK(names(error_of([&] { embedder.hidden(tokens, -2); }), "layer -2"));
  const TokenId outside[] = {1, 512};
  CHECK(names(error_of([&] { embedder.hidden(outside); }), "token 512 at index 1"));
  const auto long_text = some_tokens(model_b().config().max_positions + 1);
  CHECK(error_of([&] { embedder.hidden(long_text); }).code() == ErrorCode::kContextFull);
  CHECK(names(error_of([&] { Embedder(model_b(), {.chunk = 0}); }), "chunk 0"));
  CHECK(test::same_bits(embedder.hidden(tokens), want));
}

TEST_CASE("embeddings of the held-out texts lie by language: a piece's nearest neighbour is of its own") {
  const LoadedModel model(test::tiny_dir());
  Embedder embedder(model);
  std::vector<std::string> kinds;
  std::vector<std::vector<float>> vectors;
  for (const char* kind : {"c", "de", "en", "es", "fr", "it", "pl", "python"}) {
    const std::string text = read_file(test::golden_dir() / "tiny/heldout" / (std::string(kind) + ".txt"), 1 << 20);
    for (std::size_t begin = 0; begin + 300 <= text.size(); begin += 300) {
      kinds.emplace_back(kind);
      vectors.push_back(embedder.embed(model.prompt(text.substr(begin, 300))));
    }
  }
  // What all have in common says nothing.
  std::vector<float> mean(vectors[0].size(), 0);
  for (const auto& v : vectors) {
    for (std::size_t k = 0; k < mean.size(); ++k) mean[k] += v[k] / static_cast<float>(vectors.size());
  }
  const auto cosine = [&](const std::vector<float>& a, const std::vector<float>& b) {
    double ab = 0, aa = 0, bb = 0;
    for (std::size_t k = 0; k < mean.size(); ++k) {
      const double x = double{a[k] - mean[k]}, y = double{b[k] - mean[k]};
      ab += x * y, aa += x * x, bb += y * y;
    }
    return ab / std::sqrt(aa * bb);
  };
  std::size_t right = 0;
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    std::size_t nearest = i == 0 ? 1 : 0;
    for (std::size_t j = 0; j < vectors.size(); ++j) {
      if (j != i && cosine(vectors[i], vectors[j]) > cosine(vectors[i], vectors[nearest])) nearest = j;
    }
    right += kinds[nearest] == kinds[i] ? 1 : 0;
  }
  MESSAGE(right, " of ", vectors.size(), " pieces have a neighbour of their own language");
  CHECK(vectors.size() > 40);
  CHECK(10 * right >= 9 * vectors.size());
}
