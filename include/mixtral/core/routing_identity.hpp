// All that can change which experts work on a row, or how, as one small value: what is reused, saved, replayed or
// compared between rows must agree in it.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "mixtral/core/error.hpp"
#include "mixtral/core/float_environment.hpp"
#include "mixtral/core/types.hpp"

namespace mixtral {

// One expert of one layer.
struct ExpertPlace {
  std::int32_t layer;
  ExpertId expert;

  auto operator<=>(const ExpertPlace&) const = default;
};

// Wishes that differ from the model's own routing; nothing by default.
struct RoutingRules {
  struct Bias {
    ExpertPlace place;
    float bias;  // added to the router's logit
    bool operator==(const Bias&) const = default;
  };
  struct Version {
    ExpertPlace place;
    ExpertVersion version;
    bool operator==(const Version&) const = default;
  };
  struct Adapter {
    std::uint64_t id;  // whoever keeps adapters gives them
    float scale = 1;
    bool operator==(const Adapter&) const = default;
  };

  std::vector<ExpertPlace> masked = {};  // never chosen
  std::vector<Bias> biases = {};
  std::int32_t experts_per_token = 0;  // 0: the model's
  float min_weight = 0;                // a choice other than the first with less weight is dropped
  std::vector<Version> versions = {};  // of experts that are not to be the current ones
  std::vector<Adapter> adapters = {};  // in the order in which they are added

  bool operator==(const RoutingRules&) const = default;
};

// Rules in one canonical form, shared by copies. The default has none, and costs nothing.
class RoutingIdentity {
 public:
  RoutingIdentity() = default;
  // The same rules in another order, or with zeros spelled out, make the same identity. Throws Error(kInvalidArgument)
  // on a negative place, count or version, a bias or version that comes twice, and numbers that are not finite.
  explicit RoutingIdentity(RoutingRules rules);

  bool is_default() const noexcept { return data_ == nullptr; }
  const RoutingRules& rules() const noexcept {
    static const RoutingRules none;
    return data_ == nullptr ? none : data_->rules;
  }
  // The same for equal rules in every process, on every machine and in every later version; 0: the default.
  std::uint64_t hash() const noexcept { return data_ == nullptr ? 0 : data_->hash; }
  // Layers and experts that a model must have for it: one more than the largest.
  Index n_layers() const noexcept { return data_ == nullptr ? 0 : data_->n_layers; }
  Index n_experts() const noexcept { return data_ == nullptr ? 0 : data_->n_experts; }
  // Experts that are masked in one layer, at most.
  Index most_masked() const noexcept { return data_ == nullptr ? 0 : data_->most_masked; }

  friend bool operator==(const RoutingIdentity& a, const RoutingIdentity& b) noexcept {
    return a.data_ == b.data_ || (a.hash() == b.hash() && a.rules() == b.rules());
  }

 private:
  struct Data {
    RoutingRules rules;
    std::uint64_t hash = 0;
    Index n_layers = 0, n_experts = 0, most_masked = 0;
  };
  std::shared_ptr<const Data> data_;  // null: the default
};

namespace detail {

// FNV-1a, 64 bits, over numbers as little-endian bytes.
class StableHash {
 public:
  void add(std::uint64_t number) noexcept {
    for (int i = 0; i < 8; ++i) hash_ = (hash_ ^ (number >> (8 * i) & 0xff)) * 0x100000001b3ull;
  }
  void add(std::int32_t number) noexcept { add(static_cast<std::uint64_t>(static_cast<std::uint32_t>(number))); }
  void add(float number) noexcept { add(static_cast<std::uint64_t>(std::bit_cast<std::uint32_t>(number))); }
  void add(const ExpertPlace& place) noexcept { add(place.layer), add(place.expert); }
  std::uint64_t value() const noexcept { return hash_; }

 private:
  std::uint64_t hash_ = 0xcbf29ce484222325ull;
};

// Sorts by place; each once.
template <class T, class PlaceOf>
void sort_places(std::vector<T>& all, const char* what, PlaceOf place_of) {
  std::sort(all.begin(), all.end(), [&](const T& a, const T& b) { return place_of(a) < place_of(b); });
  for (std::size_t i = 0; i < all.size(); ++i) {
    const ExpertPlace& place = place_of(all[i]);
    require(place.layer >= 0 && place.expert >= 0, "routing rules: ", what, " of layer ", place.layer, ", expert ",
            place.expert);
    require(i == 0 || place_of(all[i - 1]) != place, "routing rules: ", what, " of layer ", place.layer, ", expert ",
            place.expert, " comes twice");
  }
}

inline void make_canonical(RoutingRules& r) {
  std::sort(r.masked.begin(), r.masked.end());
  r.masked.erase(std::unique(r.masked.begin(), r.masked.end()), r.masked.end());
  sort_places(r.masked, "a mask", [](const ExpertPlace& p) -> const ExpertPlace& { return p; });
  sort_places(r.biases, "a bias", [](const RoutingRules::Bias& b) -> const ExpertPlace& { return b.place; });
  sort_places(r.versions, "a version", [](const RoutingRules::Version& v) -> const ExpertPlace& { return v.place; });
  for (const auto& [place, bias] : r.biases) {
    require(std::isfinite(bias), "routing rules: layer ", place.layer, ", expert ", place.expert, ": bias ", bias);
  }
  for (const auto& [place, version] : r.versions) {
    require(version >= 0, "routing rules: layer ", place.layer, ", expert ", place.expert, ": version ", version);
  }
  for (const auto& [id, scale] : r.adapters) {
    require(std::isfinite(scale), "routing rules: adapter ", id, ": scale ", scale);
  }
  require(r.experts_per_token >= 0, "routing rules: ", r.experts_per_token, " experts per token");
  require(r.min_weight >= 0 && r.min_weight <= 1, "routing rules: min_weight is ", r.min_weight, ", expected 0 to 1");
  std::erase_if(r.biases, [](const auto& b) { return b.bias == 0; });
  std::erase_if(r.versions, [](const auto& v) { return v.version == kCurrentVersion; });
  std::erase_if(r.adapters, [](const auto& a) { return a.scale == 0; });
  if (r.min_weight == 0) r.min_weight = 0;  // no minus
}

inline std::uint64_t stable_hash(const RoutingRules& r) noexcept {
  StableHash hash;
  const auto add_size = [&](const auto& list) { hash.add(static_cast<std::uint64_t>(list.size())); };
  add_size(r.masked);
  for (const ExpertPlace& place : r.masked) hash.add(place);
  add_size(r.biases);
  for (const auto& [place, bias] : r.biases) hash.add(place), hash.add(bias);
  hash.add(r.experts_per_token);
  hash.add(r.min_weight);
  add_size(r.versions);
  for (const auto& [place, version] : r.versions) hash.add(place), hash.add(version);
  add_size(r.adapters);
  for (const auto& [id, scale] : r.adapters) hash.add(id), hash.add(scale);
  return hash.value();
}

}  // namespace detail

inline RoutingIdentity::RoutingIdentity(RoutingRules rules) {
  const FloatScope floats;  // a host that takes denormals for zeros gets the same identity
  detail::make_canonical(rules);
  if (rules == RoutingRules()) return;
  Data data{.rules = std::move(rules)};
  data.hash = detail::stable_hash(data.rules);
  const auto cover = [&](const ExpertPlace& place) {
    data.n_layers = std::max<Index>(data.n_layers, place.layer + Index{1});
    data.n_experts = std::max<Index>(data.n_experts, place.expert + Index{1});
  };
  Index in_layer = 0;
  std::int32_t layer = -1;
  for (const ExpertPlace& place : data.rules.masked) {
    cover(place);
    in_layer = place.layer == layer ? in_layer + 1 : 1;
    layer = place.layer;
    data.most_masked = std::max(data.most_masked, in_layer);
  }
  for (const auto& bias : data.rules.biases) cover(bias.place);
  for (const auto& version : data.rules.versions) cover(version.place);
  data.n_experts = std::max<Index>(data.n_experts, data.rules.experts_per_token);
  data_ = std::make_shared<const Data>(std::move(data));
}

}  // namespace mixtral
