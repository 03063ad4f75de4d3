#include "mixtral/core/routing_identity.hpp"

#include <doctest/doctest.h>

#include <limits>
#include <vector>

#include "support/allocations.hpp"
#include "support/error_of.hpp"

using namespace mixtral;

namespace {

RoutingRules some_rules() {
  return {.masked = {{0, 3}, {2, 1}},
          .biases = {{{1, 0}, 0.5f}, {{1, 7}, -2.0f}},
          .experts_per_token = 3,
          .min_weight = 0.1f,
          .versions = {{{0, 2}, 4}},
          .adapters = {{77, 0.5f}, {12, 1.0f}}};
}

}  // namespace

TEST_CASE("rules that change nothing are the default identity, which costs nothing") {
  const std::size_t before = test::allocations();
  const RoutingIdentity none, spelled_out(RoutingRules{});
  CHECK(none == spelled_out);
  CHECK(none.hash() == 0);
  CHECK(none.rules() == RoutingRules());
  CHECK(test::allocations() == before);
  RoutingRules idle;
  idle.biases = {{{3, 1}, -0.0f}};
  idle.versions = {{{3, 1}, kCurrentVersion}};
  idle.adapters = {{5, 0.0f}};
  idle.min_weight = -0.0f;
  CHECK(RoutingIdentity(idle).is_default());
  CHECK(RoutingIdentity(some_rules()) != none);
}

TEST_CASE("identities are equal if and only if their rules say the same, in whatever order") {
  const RoutingIdentity identity(some_rules());
  RoutingRules other_order = some_rules();
  std::swap(other_order.masked[0], other_order.masked[1]);
  std::swap(other_order.biases[0], other_order.biases[1]);
  other_order.masked.push_back({0, 3});
  other_order.biases.push_back({{5, 5}, 0.0f});
  CHECK(RoutingIdentity(other_order) == identity);
  CHECK(RoutingIdentity(other_order).hash() == identity.hash());

  std::vector<RoutingRules> others(9, some_rules());
  others[0].masked.pop_back();
  others[1].masked[0].expert = 4;
  others[2].biases[1].bias = -1.0f;
  others[3].experts_per_token = 2;
  others[4].min_weight = 0.2f;
  others[5].versions[0].version = 5;
  others[6].adapters[0].scale = 1.0f;
  std::swap(others[7].adapters[0], others[7].adapters[1]);  // they are added in this order
  others[8].masked.clear();
  for (const RoutingRules& rules : others) {
    CHECK(RoutingIdentity(rules) != identity);
    CHECK(RoutingIdentity(rules).hash() != identity.hash());
  }
}

// FNV-1a over the little-endian 64-bit numbers, computed by hand.
TEST_CASE("hashes stay what they are: saved sessions and traces have them") {
  CHECK(RoutingIdentity(some_rules()).hash() == 0xa9271a8ffa6b91d6ull);
  CHECK(RoutingIdentity(RoutingRules{.masked = {{0, 0}}}).hash() == 0xab165ceafad04724ull);
}

TEST_CASE("an identity knows which layers and experts it speaks of") {
  const RoutingIdentity identity(some_rules());
  CHECK(identity.n_layers() == 3);
  CHECK(identity.n_experts() == 8);
  CHECK(RoutingIdentity(RoutingRules{.experts_per_token = 6}).n_experts() == 6);
  CHECK(RoutingIdentity().n_layers() == 0);
}

TEST_CASE("rules that mean nothing are refused") {
  const auto refuse = [](const RoutingRules& rules) {
    CHECK(test::error_of([&] { RoutingIdentity{rules}; }).code() == ErrorCode::kInvalidArgument);
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  refuse({.masked = {{-1, 0}}});
  refuse({.masked = {{0, -1}}});
  refuse({.biases = {{{0, 0}, nan}}});
  refuse({.biases = {{{0, 0}, 1}, {{0, 0}, 2}}});
  refuse({.experts_per_token = -1});
  refuse({.min_weight = nan});
  refuse({.min_weight = 1.5f});
  refuse({.versions = {{{0, 0}, -2}}});
  refuse({.versions = {{{0, 0}, 1}, {{0, 0}, 1}}});
  refuse({.adapters = {{1, nan}}});
}
