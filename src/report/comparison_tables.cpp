#include "report/comparison_tables.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "mixtral/core/error.hpp"
#include "report/numbers.hpp"

namespace mixtral::report {
namespace {

using json = nlohmann::ordered_json;  // fields in the order written here

json distribution_json(const Distribution& d, bool all = true) {
  if (d.n == 0) return nullptr;
  json out = {{"n", d.n}, {"mean", d.mean}, {"median", d.median}};
  if (all) {
    out.update({{"mean_error", d.mean_error},
                {"p90", d.p90},
                {"p99", d.p99},
                {"p99_low", d.p99_low},
                {"p99_high", d.p99_high},
                {"max", d.max}});
  }
  return out;
}

json gating_json(const GatingStability& g) {
  return {{"decisions", g.n},
          {"same_set", g.same_set()},
          {"same_first", g.same_first()},
          {"margin_where_differing", distribution_json(g.margin_where_differing, false)},
          {"margin_where_same", distribution_json(g.margin_where_same, false)}};
}

json files_json(const ComparedFiles& files) {
  json formats = json::object();
  for (const WeightGroup& group : files.groups) formats[std::string(name_of(group.group))] = group.formats;
  return {{"path", files.path}, {"weights_bytes", files.bytes}, {"formats", std::move(formats)}};
}

std::string gating_row(const std::string& name, const GatingStability& g) {
  const auto median = [](const Distribution& d) { return d.n == 0 ? std::string("-") : fixed(d.median, 4); };
  return str(padded(name, 5), padded(percent(g.n_same_set, g.n) + " %", 15),
             padded(percent(g.n_same_first, g.n) + " %", 19), padded(median(g.margin_where_differing), 14),
             padded(median(g.margin_where_same), 10), "\n");
}

}  // namespace

json comparison_json(const ComparisonSetup& setup, const Comparison& comparison, const ComparisonResult& r) {
  json texts = json::array(), layers = json::array(), buckets = json::array();
  for (const ComparedText& text : setup.texts) texts.push_back({{"file", text.file}, {"targets", text.n_targets}});
  for (const GatingStability& layer : r.layers) layers.push_back(gating_json(layer));
  constexpr Index kBuckets = 16;
  for (const PositionBucket& b : kl_by_position(comparison.positions(), kBuckets)) {
    buckets.push_back({{"begin", b.begin}, {"end", b.end}, {"kl", distribution_json(b.kl)}});
  }
  const double difference = r.model_cross_entropy - r.reference_cross_entropy;
  return {{"model", files_json(setup.model)},
          {"reference", files_json(setup.reference)},
          {"texts", std::move(texts)},
          {"inputs", r.n_inputs},
          {"targets", r.n_targets},
          {"context", setup.context},
          {"isa", setup.isa},
          {"threads", setup.threads},
          {"cross_entropy",
           {{"model", r.model_cross_entropy},
            {"reference", r.reference_cross_entropy},
            {"difference", difference},
            {"difference_error", r.difference_error}}},
          {"perplexity",
           {{"model", std::exp(r.model_cross_entropy)},
            {"reference", std::exp(r.reference_cross_entropy)},
            {"ratio", std::exp(difference)}}},
          {"kl", distribution_json(r.kl)},
          {"kl_by_position", std::move(buckets)},
          {"top1_agreement", static_cast<double>(r.n_same_top1) / static_cast<double>(r.n_targets)},
          {"gating", gating_json(r.gating)},
          {"layers", std::move(layers)}};
}

std::string comparison_text(const ComparisonSetup& setup, const ComparisonResult& r) {
  const double difference = r.model_cross_entropy - r.reference_cross_entropy;
  const auto row = [](const char* name, double model, double reference, const std::string& third) {
    return str(name, padded(fixed(model, 6), 14), padded(fixed(reference, 6), 14), third, "\n");
  };
  std::string out =
      str("model      ", setup.model.path, "\nreference  ", setup.reference.path, "\ntokens     ", r.n_inputs,
          " read, ", r.n_targets, " predicted\n\n                       model     reference\n");
  out += row("cross-entropy", r.model_cross_entropy, r.reference_cross_entropy,
             str("  ", difference < 0 ? "" : "+", fixed(difference, 6), " (standard error ",
                 fixed(r.difference_error, 6), ")"));
  out += row("perplexity   ", std::exp(r.model_cross_entropy), std::exp(r.reference_cross_entropy),
             "  x " + fixed(std::exp(difference), 6));
  out += str("\nKL divergence         mean ", fixed(r.kl.mean, 6), " (standard error ", fixed(r.kl.mean_error, 6),
             "), median ", fixed(r.kl.median, 6), ", 99th percentile ", fixed(r.kl.p99, 6), " (",
             fixed(r.kl.p99_low, 6), " to ", fixed(r.kl.p99_high, 6), "), largest ", fixed(r.kl.max, 6),
             " nats\nsame likeliest token  ", percent(r.n_same_top1, r.n_targets), " % of the positions\n\n");
  out += str(
      "gating: tokens with the same experts; median router margin where the set differs and where it agrees\nlayer",
      padded(str("same top-", setup.n_experts_per_tok, " set"), 15), "  same first expert        differ     agree\n");
  for (std::size_t l = 0; l < r.layers.size(); ++l) out += gating_row(str(l), r.layers[l]);
  return out + gating_row("all", r.gating);
}

}  // namespace mixtral::report
