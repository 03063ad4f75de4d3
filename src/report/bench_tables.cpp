#include "report/bench_tables.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "mixtral/core/error.hpp"
#include "probes/probes.hpp"
#include "probes/statistics.hpp"
#include "report/numbers.hpp"
#include "report/weight_groups.hpp"

namespace mixtral::report {
namespace {

using json = nlohmann::ordered_json;  // fields in the order written here

json weights_json(const Model& model) {
  json groups = json::object();
  for (const WeightGroup& g : weight_groups(model)) {
    groups[std::string(name_of(g.group))] = {{"format", g.formats}, {"parameters", g.parameters}, {"bytes", g.bytes}};
  }
  return groups;
}

template <class F>
probes::Spread spread_of(const std::vector<const Repetition*>& repetitions, F&& value) {
  std::vector<double> values;
  for (const Repetition* r : repetitions) values.push_back(value(*r));
  return probes::spread(std::move(values));
}

double per(Index amount, Index count) { return static_cast<double>(amount) / static_cast<double>(count); }

// Distinct experts of a step: of each layer and on average.
json experts_json(const std::vector<Repetition>& repetitions) {
  const std::size_t n_layers = repetitions.front().work.experts.size();
  std::vector<double> layers(n_layers);
  double steps = 0, sum = 0;
  for (const Repetition& r : repetitions) {
    steps += static_cast<double>(r.work.steps);
    for (std::size_t l = 0; l < n_layers; ++l) layers[l] += static_cast<double>(r.work.experts[l]);
  }
  for (double& layer : layers) {
    layer /= steps;
    sum += layer;
  }
  return {{"mean", sum / static_cast<double>(n_layers)}, {"of_layer", layers}};
}

struct Unit {
  const char* resource;
  const char* rate;  // of the ceiling and of what is compared with it
  double scale;
};

Unit unit_of(Resource resource) {
  switch (resource) {
    case Resource::kDram: return {"DRAM read", "GB/s", 1e-9};
    case Resource::kF32: return {"float32 multiply-add", "TOPS", 1e-12};
    case Resource::kPairProducts: return {"products of bf16 pairs", "TOPS", 1e-12};
    default: return {"products of bytes", "TOPS", 1e-12};
  }
}

double rate_of(Resource resource, const Repetition& r) {
  return resource == Resource::kDram ? r.bytes_per_second() : r.operations_per_second();
}

json percent_of_ceiling(Resource resource, const Repetition& r) {
  return r.ceiling() > 0 ? json(100 * rate_of(resource, r) / r.ceiling()) : json();
}

// Of all phases' samples of the matrix unit.
double fastest_unit(const BenchFigures& measured) {
  double fastest = 0;
  for (const std::optional<Phase>* phase : {&measured.prefill, &measured.ragged}) {
    if (!*phase) continue;
    for (const Repetition& r : (*phase)->repetitions) {
      for (const double rate : r.unit_rates) fastest = std::max(fastest, rate);
    }
  }
  return fastest;
}

// What is said of some repetitions.
json figures_json(const Phase& phase, const std::vector<const Repetition*>& some) {
  const double scale = unit_of(phase.resource).scale;
  const bool has_ceiling = std::all_of(some.begin(), some.end(), [](const Repetition* r) { return r->ceiling() > 0; });
  const auto share = [&](const Repetition& r) { return 100 * rate_of(phase.resource, r) / r.ceiling(); };
  const auto ceiling = [&](const Repetition& r) { return scale * r.ceiling(); };
  return {{"runs", some.size()},
          {"tokens_per_second", spread_of(some, [](const Repetition& r) { return r.tokens_per_second(); })},
          {"GB/s", spread_of(some, [](const Repetition& r) { return 1e-9 * r.bytes_per_second(); })},
          {"TOPS", spread_of(some, [](const Repetition& r) { return 1e-12 * r.operations_per_second(); })},
          {"ceiling", has_ceiling ? json(spread_of(some, ceiling)) : json()},
          {"percent_of_ceiling", has_ceiling ? json(spread_of(some, share)) : json()}};
}

// The figures of each mode that was seen; null without a matrix unit.
json modes_json(const Phase& phase, double fastest) {
  if (!phase.has_modes) return {};
  json out = json::object();
  for (const auto mode : {probes::UnitMode::kFast, probes::UnitMode::kMixed, probes::UnitMode::kSlow}) {
    std::vector<const Repetition*> some;
    for (const Repetition& r : phase.repetitions) {
      if (probes::mode_of(r.unit_rates, fastest) == mode) some.push_back(&r);
    }
    if (!some.empty()) out[probes::name_of(mode)] = figures_json(phase, some);
  }
  return out;
}

json repetition_json(const Phase& phase, const Repetition& r, double fastest) {
  const double scale = unit_of(phase.resource).scale;
  json rates = json::array();
  for (const double rate : r.unit_rates) rates.push_back(1e-12 * rate);
  return {{"seconds", r.seconds},
          {"steps", r.work.steps},
          {"tokens", r.work.tokens},
          {"weight_bytes", r.work.weight_bytes},
          {"kv_bytes", r.work.kv_bytes},
          {"operations", r.work.operations},
          {"tokens_per_second", r.tokens_per_second()},
          {"GB/s", 1e-9 * r.bytes_per_second()},
          {"TOPS", 1e-12 * r.operations_per_second()},
          {"probe_before", scale * r.before},
          {"probe_after", scale * r.after},
          {"percent_of_ceiling", percent_of_ceiling(phase.resource, r)},
          {"steady", r.steady()},
          {"unit_TOPS", std::move(rates)},
          {"mode", phase.has_modes ? json(probes::name_of(probes::mode_of(r.unit_rates, fastest))) : json()}};
}

json phase_json(const Phase& phase, double fastest) {
  const Unit unit = unit_of(phase.resource);
  const std::vector<Repetition>& all = phase.repetitions;
  Work sum;
  json raw = json::array();
  for (const Repetition& r : all) {
    raw.push_back(repetition_json(phase, r, fastest));
    sum.tokens += r.work.tokens;
    sum.steps += r.work.steps;
    sum.weight_bytes += r.work.weight_bytes;
    sum.kv_bytes += r.work.kv_bytes;
    sum.operations += r.work.operations;
  }
  std::vector<const Repetition*> counting;
  for (const Repetition& r : all) {
    if (phase.counts(r)) counting.push_back(&r);
  }
  json out = {{"batch", phase.batch}, {"depth", phase.depth}};
  out.update(figures_json(phase, counting));
  out.update({{"dropped", all.size() - counting.size()},
              {"ceiling_of", unit.resource},
              {"ceiling_unit", unit.rate},
              {"modes", modes_json(phase, fastest)},
              {"weight_bytes_per_token", per(sum.weight_bytes, sum.tokens)},
              {"weight_bytes_per_step", per(sum.weight_bytes, sum.steps)},
              {"kv_bytes_per_step", per(sum.kv_bytes, sum.steps)},
              {"operations_per_token", per(sum.operations, sum.tokens)},
              {"distinct_experts", experts_json(all)},
              {"repetitions", std::move(raw)}});
  return out;
}

// A figure of each repetition of `phase` over that of `first`, where both count and saw the matrix unit equally fast.
template <class F>
probes::Spread times_of(const Phase& first, const Phase& phase, double fastest, F&& value) {
  std::vector<double> ratios;
  for (std::size_t i = 0; i < phase.repetitions.size(); ++i) {
    const Repetition &a = first.repetitions[i], &b = phase.repetitions[i];
    const bool alike = first.has_modes != phase.has_modes ||
                       probes::mode_of(a.unit_rates, fastest) == probes::mode_of(b.unit_rates, fastest);
    if (first.counts(a) && phase.counts(b) && alike) ratios.push_back(value(b) / value(a));
  }
  return probes::spread(std::move(ratios));
}
probes::Spread times_first(const Phase& first, const Phase& phase) {
  return times_of(first, phase, 0, [](const Repetition& r) { return r.tokens_per_second(); });
}
probes::Spread times_as_long(const Phase& first, const Phase& phase, double fastest) {
  return times_of(first, phase, fastest, [](const Repetition& r) { return r.seconds; });
}

json options_json(const BenchSubject& subject, const BenchPlan& plan) {
  return {{"prompt", plan.prompt},        {"chunk", plan.chunk},
          {"decode", plan.decode},        {"batch", plan.batch},
          {"ragged", plan.ragged},        {"depth", plan.depth},
          {"kv", name_of(plan.kv_dtype)}, {"bf16_products", subject.bf16_products},
          {"repeat", plan.repeat}};
}

std::string median_text(const json& values, int digits) {
  return values.is_null() ? "-" : fixed(values["median"].get<double>(), digits);
}

std::string range_text(const json& values, int digits) {
  if (values.is_null()) return "";
  return str("(", fixed(values["min"].get<double>(), digits), " to ", fixed(values["max"].get<double>(), digits), ")");
}

std::string gib(const json& bytes) { return fixed(bytes.get<double>() / (1 << 30), 2) + " GiB"; }
std::string mib(const json& bytes) { return fixed(bytes.get<double>() / (1 << 20), 1) + " MiB"; }

std::string line_of(const std::string& name, const json& phase) {
  const auto& unit = phase["ceiling_unit"].get_ref<const std::string&>();
  const int digits = unit == "TOPS" ? 3 : 1;
  const json& rate = phase[unit];
  const json& share = phase["percent_of_ceiling"];
  std::string line = name;
  line.resize(std::max<std::size_t>(line.size(), 22), ' ');
  line += padded(median_text(phase["tokens_per_second"], 2), 10);
  line += padded(range_text(phase["tokens_per_second"], 2), 24);
  line += padded(median_text(rate, digits), 9) + " of " + padded(median_text(phase["ceiling"], digits), 6) + " " + unit;
  line += padded(share.is_null() ? "-" : fixed(share["median"].get<double>(), 1) + " %", 9);
  line += padded(fixed(phase["distinct_experts"]["mean"].get<double>(), 2), 10);
  line += padded(str(phase["runs"].get<int>()), 6) + padded(str(phase["dropped"].get<int>()), 9);
  if (phase.contains("times_first")) line += padded(median_text(phase["times_first"], 2), 8);
  return line + "\n";
}

// null: not used.
json matrix_unit_json(const std::optional<MatrixUnit>& unit) {
  if (!unit) return {};
  constexpr Index kNever = Index{1} << 32;  // more tokens than a step has
  return {{"from_tokens", unit->from_tokens < kNever ? json(unit->from_tokens) : json()},
          {"times_vector_unit", unit->times_vector_unit}};
}

}  // namespace

json bench_json(const BenchSubject& subject, const BenchPlan& plan, const BenchFigures& measured, Index probe_bytes) {
  const Index own = subject.anonymous_weights + probe_bytes;
  const double fastest = fastest_unit(measured);
  json out = {{"machine", probes::machine_name()},
              {"isa", subject.isa},
              {"matrix_unit", matrix_unit_json(subject.matrix_unit)},
              {"threads", subject.threads},
              {"model", subject.name},
              {"layers", subject.model.config.n_layers},
              {"weights_in", subject.memory},
              {"weights", weights_json(subject.model)},
              {"options", options_json(subject, plan)},
              {"memory",
               {{"weights_bytes", weight_bytes(subject.model)},
                {"kv_bytes", measured.kv_bytes},
                {"scratch_bytes", measured.scratch_bytes},
                {"beside_weights_bytes", std::max<Index>(measured.anonymous_bytes - own, 0)}}},
              {"prefill", measured.prefill ? phase_json(*measured.prefill, fastest) : json()},
              {"ragged", measured.ragged ? phase_json(*measured.ragged, fastest) : json()},
              {"decode", json::array()}};
  if (measured.ragged) out["ragged"]["times_prompt"] = times_as_long(*measured.prefill, *measured.ragged, fastest);
  for (const Phase& phase : measured.decode) {
    out["decode"].push_back(phase_json(phase, fastest));
    if (measured.decode.size() > 1) out["decode"].back()["times_first"] = times_first(measured.decode[0], phase);
  }
  return out;
}

std::string bench_text(const json& r) {
  const json& memory = r["memory"];
  std::string out = str(r["model"].get<std::string>(), ", ", r["layers"].get<Index>(), " layers, experts in ",
                        r["weights"]["experts"]["format"].get<std::string>(), ", ", r["weights_in"].get<std::string>(),
                        "; ", r["isa"].get<std::string>(), ", ", r["threads"].get<int>(), " threads; ",
                        r["machine"].get<std::string>(), "\n");
  out += str("weights ", gib(memory["weights_bytes"]), ", KV cache ", mib(memory["kv_bytes"]), ", scratch ",
             mib(memory["scratch_bytes"]), "; beside the weights ", mib(memory["beside_weights_bytes"]), "\n");
  if (const json& unit = r["matrix_unit"]; !unit.is_null()) {
    const json& from = unit["from_tokens"];
    out += str("matrix unit ", from.is_null() ? "never taken" : str("from ", from.get<Index>(), " tokens on"),
               ", its products ", fixed(unit["times_vector_unit"].get<double>(), 1),
               " times as fast as the vector unit's\n");
  }
  out += "\n";
  out += std::string(22, ' ') +
         "     tok/s                 (range)              rate   ceiling   share   experts  runs  dropped";
  out += r["decode"].size() > 1 ? "  x first\n" : "\n";
  const auto add = [&](const std::string& name, const json& phase) {
    out += line_of(name, phase);
    if (phase["modes"].is_object()) {
      for (const auto& [mode, figures] : phase["modes"].items()) {
        out += str("  matrix unit ", mode, " on the calling CPU: ", figures["runs"].get<int>(), " runs, ",
                   median_text(figures["tokens_per_second"], 1), " tok/s, ",
                   median_text(figures["percent_of_ceiling"], 1), " % of its ceiling\n");
      }
    }
  };
  if (!r["prefill"].is_null()) add(str("prompt of ", r["options"]["prompt"].get<Index>()), r["prefill"]);
  if (!r["ragged"].is_null()) {
    add(str("and decode ", r["ragged"]["batch"].get<Index>(), " beside"), r["ragged"]);
    out += str(std::string(22, ' '), "   takes ", median_text(r["ragged"]["times_prompt"], 2),
               " times as long as the prompt alone\n");
  }
  for (const json& phase : r["decode"]) {
    const auto batch = phase["batch"].get<Index>();
    add(str("decode ", batch, " at ", phase["depth"].get<Index>()), phase);
  }
  return out;
}

}  // namespace mixtral::report
