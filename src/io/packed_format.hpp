// What the writer and the reader of packed files share: names, sizes and places.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "mixtral/core/dtype.hpp"
#include "mixtral/model/config.hpp"
#include "mixtral/model/weights.hpp"

namespace mixtral {

inline constexpr Index kPackedAlignment = 4096;
inline constexpr std::string_view kPackedVersion = "1";
inline constexpr std::string_view kFormatKey = "mixtral.format", kConfigKey = "mixtral.config",
                                  kHeaderKey = "mixtral.header", kSumPrefix = "xxh3:";

constexpr Index padded_bytes(Index bytes) noexcept {
  return (bytes + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment;
}

// A tensor of the file: one of the model's, or the three of an expert.
struct PackedUnit {
  TensorSlot slot;  // of an expert: its w1
  Shape<2> shape;   // of an expert: of w1 and w3; w2 has it transposed

  bool is_expert() const noexcept { return slot.kind == TensorKind::kW1; }
  TensorSlot part(TensorKind kind) const noexcept { return {kind, slot.layer, slot.expert}; }
  std::string name() const {
    return is_expert() ? str("layers.", slot.layer, ".experts.", slot.expert) : slot_name(slot);
  }
};

// In the order of the file, that of the forward pass.
template <class F>
void for_each_unit(const ModelConfig& config, F&& f) {
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    if (slot.kind != TensorKind::kW2 && slot.kind != TensorKind::kW3) f(PackedUnit{slot, shape});
  });
}

// The type of a unit's matrix; of an expert that of w1 and w3, and that of w2.
struct UnitTypes {
  explicit UnitTypes(DType all) noexcept : own(all), w2(all) {}
  UnitTypes(DType pair, DType down) noexcept : own(pair), w2(down) {}
  DType own, w2;
};

// Where a unit's matrices begin, and its size: multiples of kPackedAlignment. Packed, w1 and w3 are one pair at 0.
struct UnitLayout {
  Index w3 = 0, w2 = 0;  // experts
  Index bytes = 0;
};
UnitLayout layout_of(const PackedUnit& unit, const UnitTypes& types);

// Lets the views of `weights` look at the unit at `data`.
void place_unit(const PackedUnit& unit, const UnitTypes& types, const std::byte* data, Weights& weights);

// What __metadata__ says of a tensor: "P4 xxh3:0123456789abcdef", of an expert with two types "Q4_K P8 xxh3:...", or
// "file 493443 xxh3:...".
struct TensorNote {
  std::optional<UnitTypes> types;  // of weights
  Index file_bytes = 0;            // of an embedded file, without its padding
  std::uint64_t sum = 0;           // of the whole tensor
};
std::string note_text(const TensorNote& note);
std::optional<TensorNote> parse_note(std::string_view text);

// The sum of the header's JSON, its own digits in it counted as zeros, and where these are; 0 if they are nowhere.
struct HeaderSum {
  std::size_t place = 0;
  std::uint64_t sum = 0;
};
HeaderSum header_sum(std::string json);

// All fields by their names. The reader throws Error(kBadFormat | kUnsupported) that begins with `where`.
std::string config_text(const ModelConfig& config);
ModelConfig parse_config(std::string_view text, const std::string& where);

}  // namespace mixtral
