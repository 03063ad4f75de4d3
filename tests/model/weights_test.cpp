#include "mixtral/model/weights.hpp"

#include <doctest/doctest.h>

#include <set>

#include "mixtral/io/synthetic.hpp"
#include "support/error_of.hpp"
#include "support/models.hpp"

using namespace mixtral;

TEST_CASE("the list names every tensor once and reaches a view of its own for each") {
  const ModelConfig c = test::small_config();
  Weights weights(c);
  std::set<std::string> names;
  std::set<const MatrixView*> views;
  for_each_tensor(c, [&](const TensorSlot& slot, const Shape<2>&) {
    names.insert(slot_name(slot));
    views.insert(&weights.at(slot));
  });
  const std::size_t want = 3 + 2 * (7 + 3 * 8);
  CHECK(names.size() == want);
  CHECK(views.size() == want);
  CHECK(names.count("layers.1.experts.5.w2") == 1);
  CHECK(names.count("layers.0.gate") == 1);
  CHECK(names.count("final_norm") == 1);
}

TEST_CASE("every kind of tensor is in one group, of which those of large matrices may be packed") {
  using enum TensorKind;
  const std::pair<TensorKind, std::string_view> want[] = {{kEmbedding, "embedding"},
                                                          {kAttentionNorm, "norms"},
                                                          {kFfnNorm, "norms"},
                                                          {kFinalNorm, "norms"},
                                                          {kWq, "attention"},
                                                          {kWk, "attention"},
                                                          {kWv, "attention"},
                                                          {kWo, "attention"},
                                                          {kRouter, "gate"},
                                                          {kW1, "experts"},
                                                          {kW2, "experts"},
                                                          {kW3, "experts"},
                                                          {kHead, "head"}};
  for (const auto& [kind, name] : want) {
    CAPTURE(name);
    CHECK(name_of(group_of(kind)) == name);
    CHECK(is_vector(kind) == (name == "norms"));
    CHECK(may_be_packed(group_of(kind)) == (name == "attention" || name == "experts" || name == "head"));
  }
}

TEST_CASE("a model with tied embeddings has no head") {
  ModelConfig c = test::small_config();
  c.tied_embeddings = true;
  for_each_tensor(c, [&](const TensorSlot& slot, const Shape<2>&) { CHECK(slot.kind != TensorKind::kHead); });
}

TEST_CASE("a model without a head has all tensors but that one, and parameters of these alone") {
  ModelConfig c = test::small_config();
  const Index all = count_parameters(c).total;
  CHECK(c.has_own_head());
  c.has_head = false;
  CHECK_FALSE(c.has_own_head());
  for_each_tensor(c, [&](const TensorSlot& slot, const Shape<2>&) { CHECK(slot.kind != TensorKind::kHead); });
  CHECK(count_parameters(c).total == all - c.vocab_size * c.dim);
}

TEST_CASE("validation names the tensor that is missing or has another shape") {
  test::RandomModel m(test::small_config());
  const auto refuse = [&](const TensorSlot& slot, const MatrixView& view) {
    const MatrixView kept = m.model.weights.at(slot);
    m.model.weights.at(slot) = view;
    const Error error = test::error_of([&] { validate(m.model.weights, m.model.config); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(test::names(error, slot_name(slot)));
    m.model.weights.at(slot) = kept;
  };
  for_each_tensor(m.model.config, [&](const TensorSlot& slot, const Shape<2>&) { refuse(slot, {}); });
  const TensorSlot w1{TensorKind::kW1, 1, 3};
  refuse(w1, m.model.weights.at(w1).rows_from(0, 47));
  CHECK_NOTHROW(validate(m.model.weights, m.model.config));
}

TEST_CASE("Mixtral 8x7B has 46.7 billion parameters, of which 12.9 work on one token") {
  const ModelConfig c = synthetic_config("mixtral-8x7b");
  CHECK(count_parameters(c).total == 46702792704);
  CHECK(count_parameters(c).active == 12879925248);
}
