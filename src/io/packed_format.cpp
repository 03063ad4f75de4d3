#include "io/packed_format.hpp"

#include <charconv>
#include <limits>

#include "core/json.hpp"
#include "io/catalog.hpp"
#include "io/checksum.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/ops/pack.hpp"

namespace mixtral {
namespace {

using json::ObjectReader;

constexpr float kMinFloat = std::numeric_limits<float>::min(), kMaxFloat = std::numeric_limits<float>::max();
constexpr std::string_view kHalfSplit = "half_split", kInterleaved = "interleaved";
constexpr std::string_view kFields[] = {
    "dim",        "hidden_dim",        "n_layers",   "n_heads",       "n_kv_heads",      "head_dim",
    "n_experts",  "n_experts_per_tok", "vocab_size", "max_positions", "sliding_window",  "norm_eps",
    "rope_theta", "rope_pairing",      "bos_id",     "eos_ids",       "tied_embeddings", "rope_scaling",
    "has_head"};
constexpr std::string_view kFieldsOfScaling[] = {"type",      "factor",    "attention_factor", "original_max_positions",
                                                 "beta_fast", "beta_slow", "truncate"};

json::Value real(float value) { return {json::Real{static_cast<double>(value), str(value)}}; }

RopePairing read_pairing(const ObjectReader& json) {
  const std::string& text = json.string("rope_pairing");
  require(text == kHalfSplit || text == kInterleaved, ErrorCode::kUnsupported, json.where(), ": rope_pairing is ",
          json::quote(text), ", expected ", kHalfSplit, " or ", kInterleaved);
  return text == kHalfSplit ? RopePairing::kHalfSplit : RopePairing::kInterleaved;
}

std::optional<DType> weight_type(std::string_view name) noexcept {
  for (const DTypeInfo& info : kDTypes) {
    if (info.name == name && (is_weight(info.dtype) || is_packed(info.dtype))) return info.dtype;
  }
  return std::nullopt;
}

json::Object scaling_fields(const RopeScaling& s) {
  json::Object fields = {{"type", {std::string(name_of(s.kind))}},
                         {"factor", real(s.factor)},
                         {"attention_factor", real(s.attention_factor)}};
  if (s.kind == RopeScaling::Kind::kYarn) {
    fields.push_back({"original_max_positions", {s.original_max_positions}});
    fields.push_back({"beta_fast", real(s.beta_fast)});
    fields.push_back({"beta_slow", real(s.beta_slow)});
    fields.push_back({"truncate", {s.truncate}});
  }
  return fields;
}

RopeScaling read_scaling(const ObjectReader& json) {
  using enum RopeScaling::Kind;
  const std::optional<ObjectReader> fields = json.optional_object("rope_scaling");
  RopeScaling s;
  if (!fields) return s;
  fields->require_known(kFieldsOfScaling);
  const std::string& type = fields->string("type");
  require(type == name_of(kLinear) || type == name_of(kYarn), ErrorCode::kUnsupported, fields->where(), ": type is ",
          json::quote(type), ", expected ", name_of(kLinear), " or ", name_of(kYarn));
  s.kind = type == name_of(kLinear) ? kLinear : kYarn;
  s.factor = fields->number("factor", kMinFloat, kMaxFloat);
  s.attention_factor = fields->number("attention_factor", kMinFloat, kMaxFloat);
  if (s.kind == kLinear) return s;
  s.original_max_positions = fields->integer("original_max_positions", 1, Index{1} << 30);
  s.beta_fast = fields->number("beta_fast", kMinFloat, kMaxFloat);
  s.beta_slow = fields->number("beta_slow", kMinFloat, kMaxFloat);
  s.truncate = fields->boolean("truncate", true);
  return s;
}

}  // namespace

UnitLayout layout_of(const PackedUnit& unit, const UnitTypes& types) {
  const Index rows = unit.shape[0], cols = unit.shape[1];
  const auto bytes = [](DType dtype, Index r, Index c) {
    return padded_bytes(is_packed(dtype) ? ops::packed_bytes(dtype, r, c) : r * c * size_of(dtype));
  };
  const Index one = bytes(types.own, rows, cols), down = bytes(types.w2, cols, rows);
  if (!unit.is_expert()) return {0, 0, one};
  if (!is_packed(types.own)) return {one, 2 * one, 2 * one + down};
  const Index pair = padded_bytes(ops::packed_pair_bytes(types.own, rows, cols));
  return {0, pair, pair + down};
}

void place_unit(const PackedUnit& unit, const UnitTypes& types, const std::byte* data, Weights& weights) {
  const Index rows = unit.shape[0], cols = unit.shape[1];
  const UnitLayout layout = layout_of(unit, types);
  const auto view = [](DType dtype, Index r, Index c, const std::byte* at) {
    return is_packed(dtype) ? MatrixView::packed(dtype, r, c, at) : MatrixView(dtype, r, c, at);
  };
  if (!unit.is_expert()) {
    weights.at(unit.slot) = view(types.own, rows, cols, data);
    return;
  }
  MatrixView& w1 = weights.at(unit.part(TensorKind::kW1));
  MatrixView& w2 = weights.at(unit.part(TensorKind::kW2));
  MatrixView& w3 = weights.at(unit.part(TensorKind::kW3));
  w1 = view(types.own, rows, cols, data);
  w3 = view(types.own, rows, cols, data + layout.w3);
  w2 = view(types.w2, cols, rows, data + layout.w2);
  if (is_packed(types.own)) {
    w1 = MatrixView::packed(types.own, rows, cols, data, PanelPart::kFirst);
    w3 = MatrixView::packed(types.own, rows, cols, data, PanelPart::kSecond);
  }
}

std::string note_text(const TensorNote& note) {
  const std::string sum = str(' ', kSumPrefix, sum_text(note.sum));
  if (!note.types) return str("file ", note.file_bytes, sum);
  const auto& [own, w2] = *note.types;
  return own == w2 ? str(name_of(own), sum) : str(name_of(own), ' ', name_of(w2), sum);
}

std::optional<TensorNote> parse_note(std::string_view text) {
  TensorNote note;
  const std::size_t space = text.rfind(' ');
  if (space == text.npos || !text.substr(space + 1).starts_with(kSumPrefix)) return std::nullopt;
  const std::optional<std::uint64_t> sum = parse_sum(text.substr(space + 1 + kSumPrefix.size()));
  if (!sum) return std::nullopt;
  note.sum = *sum;
  text = text.substr(0, space);
  constexpr std::string_view kFile = "file ";
  if (text.starts_with(kFile)) {
    text.remove_prefix(kFile.size());
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), note.file_bytes);
    if (error != std::errc() || end != text.data() + text.size() || note.file_bytes < 0) return std::nullopt;
    return note;
  }
  const std::size_t between = text.find(' ');
  const std::optional<DType> own = weight_type(text.substr(0, between));
  const std::optional<DType> w2 = between == text.npos ? own : weight_type(text.substr(between + 1));
  if (!own || !w2) return std::nullopt;
  note.types = UnitTypes(*own, *w2);
  return note;
}

HeaderSum header_sum(std::string json) {
  const std::string begin = str('"', kHeaderKey, "\":\"", kSumPrefix), zeros(sum_text(0));
  const std::size_t at = json.find(begin), place = at + begin.size();
  if (at == json.npos || json.size() - place < zeros.size()) return {};
  json.replace(place, zeros.size(), zeros);
  return {place, checksum(std::as_bytes(std::span(json)))};
}

// has_head stands only in files without one: readers that do not know it refuse those, and read the others.
std::string config_text(const ModelConfig& c) {
  json::Array eos_ids;
  for (const TokenId id : c.eos_ids) eos_ids.push_back({Index{id}});
  json::Object fields = {
      {"dim", {c.dim}},
      {"hidden_dim", {c.hidden_dim}},
      {"n_layers", {c.n_layers}},
      {"n_heads", {c.n_heads}},
      {"n_kv_heads", {c.n_kv_heads}},
      {"head_dim", {c.head_dim}},
      {"n_experts", {c.n_experts}},
      {"n_experts_per_tok", {c.n_experts_per_tok}},
      {"vocab_size", {c.vocab_size}},
      {"max_positions", {c.max_positions}},
      {"sliding_window", {c.sliding_window}},
      {"norm_eps", real(c.norm_eps)},
      {"rope_theta", real(c.rope_theta)},
      {"rope_pairing", {std::string(c.rope_pairing == RopePairing::kHalfSplit ? kHalfSplit : kInterleaved)}},
      {"tied_embeddings", {c.tied_embeddings}},
      {"bos_id", {Index{c.bos_id}}},
      {"eos_ids", {std::move(eos_ids)}}};
  // Only where it is set: readers of before 1.2 refuse fields that they do not know, and no other file.
  if (c.rope_scaling.kind != RopeScaling::Kind::kNone)
    fields.push_back({"rope_scaling", {scaling_fields(c.rope_scaling)}});
  if (!c.has_head) fields.push_back({"has_head", {false}});
  return json::dump({std::move(fields)});
}

ModelConfig parse_config(std::string_view text, const std::string& where) {
  using detail::kMaxDimension;
  const json::Value value = json::parse(text, where);
  const ObjectReader json(value, where);
  json.require_known(kFields);
  ModelConfig c;
  c.dim = json.integer("dim", 1, kMaxDimension);
  c.hidden_dim = json.integer("hidden_dim", 1, kMaxDimension);
  c.n_layers = json.integer("n_layers", 1, 1 << 16);
  c.n_heads = json.integer("n_heads", 1, 1 << 16);
  c.n_kv_heads = json.integer("n_kv_heads", 1, c.n_heads);
  c.head_dim = json.integer("head_dim", 2, 1 << 16);
  c.n_experts = json.integer("n_experts", 1, 1 << 16);
  c.n_experts_per_tok = json.integer("n_experts_per_tok", 1, c.n_experts);
  c.vocab_size = json.integer("vocab_size", 1, kMaxDimension);
  c.max_positions = json.integer("max_positions", 1, Index{1} << 30);
  c.sliding_window = json.integer("sliding_window", 0, std::numeric_limits<Index>::max() / 2);
  c.norm_eps = json.number("norm_eps", 0, kMaxFloat);
  c.rope_theta = json.number("rope_theta", 0, kMaxFloat);
  c.rope_pairing = read_pairing(json);
  c.rope_scaling = read_scaling(json);
  c.tied_embeddings = json.boolean("tied_embeddings", false);
  c.has_head = json.boolean("has_head", true);
  c.bos_id = static_cast<TokenId>(json.integer("bos_id", -1, c.vocab_size - 1));
  c.eos_ids.clear();
  for (const Index id : json.integer_or_list("eos_ids", 0, c.vocab_size - 1)) {
    c.eos_ids.push_back(static_cast<TokenId>(id));
  }
  require_valid(c, where);
  return c;
}

}  // namespace mixtral
