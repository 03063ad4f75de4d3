#include "io/packed_format.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

#include "core/json.hpp"
#include "io/checksum.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/ops/pack.hpp"

namespace mixtral {
namespace {

using json::ObjectReader;

constexpr float kMaxFloat = std::numeric_limits<float>::max();
constexpr std::string_view kHalfSplit = "half_split", kInterleaved = "interleaved";
constexpr std::string_view kFields[] = {
    "dim",        "hidden_dim",        "n_layers",   "n_heads",       "n_kv_heads",      "head_dim",
    "n_experts",  "n_experts_per_tok", "vocab_size", "max_positions", "sliding_window",  "norm_eps",
    "rope_theta", "rope_pairing",      "bos_id",     "eos_ids",       "tied_embeddings", "has_head"};

json::Value real(float value) { return {json::Real{static_cast<double>(value), str(value)}}; }

RopePairing read_pairing(const ObjectReader& json) {
  const std::string& text = json.string("rope_pairing");
  require(text == kHalfSplit || text == kInterleaved, ErrorCode::kUnsupported, json.where(), ": rope_pairing is ",
          json::quote(text), ", expected ", kHalfSplit, " or ", kInterleaved);
  return text == kHalfSplit ? RopePairing::kHalfSplit : RopePairing::kInterleaved;
}

void require_known(const json::Value& value, const std::string& where) {
  for (const json::Member& member : *value.get<json::Object>()) {
    require(std::find(std::begin(kFields), std::end(kFields), member.key) != std::end(kFields), ErrorCode::kUnsupported,
            where, ": ", json::quote(member.key), " is unknown");
  }
}

}  // namespace

UnitLayout layout_of(const PackedUnit& unit, DType dtype) {
  const Index rows = unit.shape[0], cols = unit.shape[1];
  UnitLayout layout;
  if (is_packed(dtype)) {
    if (!unit.is_expert()) return {0, 0, padded_bytes(ops::packed_bytes(dtype, rows, cols))};
    layout.w2 = padded_bytes(ops::packed_pair_bytes(dtype, rows, cols));
    layout.bytes = layout.w2 + padded_bytes(ops::packed_bytes(dtype, cols, rows));
    return layout;
  }
  const Index one = padded_bytes(rows * cols * size_of(dtype));
  if (!unit.is_expert()) return {0, 0, one};
  return {one, 2 * one, 3 * one};
}

void place_unit(const PackedUnit& unit, DType dtype, const std::byte* data, Weights& weights) {
  const Index rows = unit.shape[0], cols = unit.shape[1];
  const UnitLayout layout = layout_of(unit, dtype);
  const bool packed = is_packed(dtype);
  if (!unit.is_expert()) {
    weights.at(unit.slot) = packed ? MatrixView::packed(dtype, rows, cols, data) : MatrixView(dtype, rows, cols, data);
    return;
  }
  MatrixView& w1 = weights.at(unit.part(TensorKind::kW1));
  MatrixView& w2 = weights.at(unit.part(TensorKind::kW2));
  MatrixView& w3 = weights.at(unit.part(TensorKind::kW3));
  if (packed) {
    w1 = MatrixView::packed(dtype, rows, cols, data, PanelPart::kFirst);
    w3 = MatrixView::packed(dtype, rows, cols, data, PanelPart::kSecond);
    w2 = MatrixView::packed(dtype, cols, rows, data + layout.w2);
  } else {
    w1 = MatrixView(dtype, rows, cols, data);
    w3 = MatrixView(dtype, rows, cols, data + layout.w3);
    w2 = MatrixView(dtype, cols, rows, data + layout.w2);
  }
}

std::string note_text(const TensorNote& note) {
  const std::string kind = note.dtype ? std::string(name_of(*note.dtype)) : str("file ", note.file_bytes);
  return str(kind, ' ', kSumPrefix, sum_text(note.sum));
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
  for (const DTypeInfo& info : kDTypes) {
    if (info.name == text && (is_weight(info.dtype) || is_packed(info.dtype))) note.dtype = info.dtype;
  }
  return note.dtype ? std::optional(note) : std::nullopt;
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
  json::Object fields{
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
  if (!c.has_head) fields.push_back({"has_head", {false}});
  return json::dump({std::move(fields)});
}

ModelConfig parse_config(std::string_view text, const std::string& where) {
  using detail::kMaxDimension;
  const json::Value value = json::parse(text, where);
  const ObjectReader json(value, where);
  require_known(value, where);
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
  c.tied_embeddings = json.boolean("tied_embeddings", false);
  c.has_head = json.boolean("has_head", true);
  c.bos_id = static_cast<TokenId>(json.integer("bos_id", -1, c.vocab_size - 1));
  c.eos_ids.clear();
  for (const Index id : json.integer_or_list("eos_ids", 0, c.vocab_size - 1)) {
    c.eos_ids.push_back(static_cast<TokenId>(id));
  }
  try {
    c.validate();  // what one field alone does not say
  } catch (const Error& error) {
    fail(ErrorCode::kBadFormat, where, ": ", error.what());
  }
  return c;
}

}  // namespace mixtral
