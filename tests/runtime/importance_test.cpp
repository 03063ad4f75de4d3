#include "mixtral/runtime/importance.hpp"

#include <doctest/doctest.h>

#include <numeric>

#include "mixtral/runtime/session.hpp"
#include "support/float_environments.hpp"
#include "support/models.hpp"

using namespace mixtral;

namespace {

// What `importance` should say of inputs [n, cols] alone.
std::vector<float> expected(const std::vector<std::vector<double>>& rows) {
  std::vector<double> sums(rows.front().size());
  for (const auto& row : rows) {
    for (std::size_t k = 0; k < row.size(); ++k) sums[k] += row[k] * row[k];
  }
  const double mean = std::accumulate(sums.begin(), sums.end(), 0.0) / static_cast<double>(sums.size());
  std::vector<float> out;
  for (const double sum : sums) out.push_back(static_cast<float>(sum / mean + 0.05));
  return out;
}

void check_near(const std::vector<float>& got, const std::vector<float>& want) {
  REQUIRE(got.size() == want.size());
  for (std::size_t k = 0; k < got.size(); ++k) CHECK(got[k] == doctest::Approx(want[k]).epsilon(1e-5));
}

// Copies of what the observer is shown.
struct Copies : ForwardObserver {
  using Rows = std::vector<std::vector<double>>;
  static void add(Rows& rows, const float* row, Index n) { rows.emplace_back(row, row + n); }
  void on_attention_norm(Index layer, TensorView<const float, 2> h) override {
    for (Index t = 0; layer == 1 && t < h.dim(0); ++t) add(norm, h.row(t), h.dim(1));
  }
  void on_attended(Index layer, TensorView<const float, 2> x) override {
    for (Index t = 0; layer == 0 && t < x.dim(0); ++t) add(attended, x.row(t), x.dim(1));
  }
  void on_expert(Index layer, const moe::ExpertRows& rows) override {
    if (layer != 1) return;
    const auto e = static_cast<std::size_t>(rows.expert);
    for (const Index t : rows.tokens) add(inputs[e], rows.h.row(t), rows.h.dim(1));
    for (Index i = 0; i < rows.hidden.dim(0); ++i) add(hidden[e], rows.hidden.row(i), rows.hidden.dim(1));
  }
  void on_final_norm(TensorView<const float, 2> x) override {
    for (Index t = 0; t < x.dim(0); ++t) add(head, x.row(t), x.dim(1));
  }
  Rows norm, attended, head, inputs[8], hidden[8];
};

}  // namespace

TEST_CASE("importance is the mean square of what each matrix multiplies, over all steps") {
  const test::RandomModel m(test::small_config());
  SerialExecutor serial;
  const KernelTable table = test::reference_table();
  Importance importance(m.model.config);
  Copies copies;
  Observers both{&importance, &copies};
  const LoadedModel loaded(m.model, table, serial);
  Session session(loaded);
  for (const std::vector<TokenId>& tokens : {std::vector<TokenId>{1, 2, 3, 4, 5}, {7, 8}}) {
    session.feed(tokens);
    session.eval(&both, [](Index, TensorView<const float, 2>) {});
  }
  CHECK(copies.norm.size() == 7);
  CHECK(copies.head.size() == 7);
  using enum TensorKind;
  for (const TensorKind kind : {kWq, kWk, kWv}) check_near(importance.of({kind, 1}), expected(copies.norm));
  check_near(importance.of({kWo, 0}), expected(copies.attended));
  check_near(importance.of({kHead}), expected(copies.head));
  Index used = 0;
  for (Index e = 0; e < 8; ++e) {
    const auto i = static_cast<std::size_t>(e);
    if (copies.inputs[i].empty()) {
      for (const TensorKind kind : {kW1, kW2, kW3}) CHECK(importance.of({kind, 1, e}).empty());
      continue;
    }
    ++used;
    for (const TensorKind kind : {kW1, kW3}) check_near(importance.of({kind, 1, e}), expected(copies.inputs[i]));
    check_near(importance.of({kW2, 1, e}), expected(copies.hidden[i]));
  }
  CHECK(used > 1);
}

TEST_CASE("where nothing was seen, and for what is not packed, no channel counts more than another") {
  const Importance importance(test::small_config());
  using enum TensorKind;
  for (const TensorSlot& slot : {TensorSlot{kHead}, TensorSlot{kWq, 0}, TensorSlot{kW2, 1, 7}, TensorSlot{kEmbedding},
                                 TensorSlot{kRouter, 0}, TensorSlot{kWq, 2}}) {
    CHECK(importance.of(slot).empty());
  }
}

TEST_CASE("importance does not depend on the host's floating-point environment") {
  const test::RandomModel m(test::small_config());
  SerialExecutor serial;
  const KernelTable table = test::reference_table();
  test::check_in_every_float_environment([&] {
    Importance importance(m.model.config);
    const LoadedModel loaded(m.model, table, serial);
    Session session(loaded);
    session.feed(std::vector<TokenId>{1, 2, 3, 4, 5});
    session.eval(&importance);
    return importance.of({TensorKind::kWq, 1});
  });
}
