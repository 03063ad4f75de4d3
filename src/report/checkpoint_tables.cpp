#include "report/checkpoint_tables.hpp"

#include <algorithm>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "mixtral/core/error.hpp"
#include "report/numbers.hpp"
#include "report/weight_groups.hpp"

namespace mixtral::report {
namespace {

using json = nlohmann::ordered_json;  // fields in the order written here

// Tensors that differ only in the numbers inside their names.
struct Group {
  std::string name;  // "model.layers.*.self_attn.q_proj.weight"
  std::string_view type;
  std::vector<Index> shape;
  Index count = 0, bytes = 0;
};

std::string with_stars(const std::string& name) {
  std::string out;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('.', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    const bool number = !part.empty() && part.find_first_not_of("0123456789") == std::string::npos;
    out += str(begin == 0 ? "" : ".", number ? "*" : part.c_str());
    begin = end + 1;
  }
  return out;
}

std::vector<Group> grouped(const std::vector<CheckpointTensor>& tensors) {
  std::map<std::tuple<std::string, std::string_view, std::vector<Index>>, Group> groups;
  for (const CheckpointTensor& tensor : tensors) {
    const std::string name = with_stars(tensor.name);
    Group& g =
        groups.try_emplace({name, tensor.type, tensor.shape}, Group{name, tensor.type, tensor.shape}).first->second;
    ++g.count;
    g.bytes += tensor.bytes;
  }
  std::vector<Group> list;
  for (auto& [key, g] : groups) list.push_back(std::move(g));
  return list;
}

json tensors_json(const std::vector<CheckpointTensor>& tensors) {
  json out = json::array();
  for (const Group& g : grouped(tensors)) {
    out.push_back({{"name", g.name}, {"dtype", g.type}, {"shape", g.shape}, {"count", g.count}, {"bytes", g.bytes}});
  }
  return out;
}

// The double that a reader of the file would have written: 1e-05, not 9.99999974e-06.
json shortest(float value) { return json::parse(str(value)); }

json config_json(const ModelConfig& c) {
  return {{"dim", c.dim},
          {"hidden_dim", c.hidden_dim},
          {"n_layers", c.n_layers},
          {"n_heads", c.n_heads},
          {"n_kv_heads", c.n_kv_heads},
          {"head_dim", c.head_dim},
          {"n_experts", c.n_experts},
          {"n_experts_per_tok", c.n_experts_per_tok},
          {"vocab_size", c.vocab_size},
          {"max_positions", c.max_positions},
          {"sliding_window", c.sliding_window},
          {"norm_eps", shortest(c.norm_eps)},
          {"rope_theta", shortest(c.rope_theta)},
          {"tied_embeddings", c.tied_embeddings},
          {"has_head", c.has_head},
          {"bos_id", c.bos_id},
          {"eos_ids", c.eos_ids}};
}

json scaling_json(const RopeScaling& s) {
  json out = {
      {"type", name_of(s.kind)}, {"factor", shortest(s.factor)}, {"attention_factor", shortest(s.attention_factor)}};
  if (s.kind == RopeScaling::Kind::kYarn) {
    out.update({{"original_max_positions", s.original_max_positions},
                {"beta_fast", shortest(s.beta_fast)},
                {"beta_slow", shortest(s.beta_slow)},
                {"truncate", s.truncate}});
  }
  return out;
}

json groups_json(const Model& model) {
  json out = json::array();
  for (const WeightGroup& g : weight_groups(model)) {
    out.push_back({{"group", name_of(g.group)}, {"formats", g.formats}, {"bytes", g.bytes}});
  }
  return out;
}

json memory_json(const Checkpoint& checkpoint, const MemoryNeeds& memory) {
  return {{"weights_bytes", weight_bytes(checkpoint.model)},
          {"weights_mapped", checkpoint.mapped},
          {"weights", groups_json(checkpoint.model)},
          {"kv_cache_type", name_of(memory.kv_dtype)},
          {"kv_cache_bytes_per_1024_tokens", memory.kv_bytes_per_1024_tokens},
          {"kv_cache_bytes_at_max_positions", memory.kv_bytes_at_max_positions},
          {"working_bytes", memory.working_bytes}};
}

json check_json(const Model& model, const WeightCheck& check) {
  json wrong = json::array();
  for (const WeightCheck::Wrong& w : check.wrong) wrong.push_back({{"name", w.name}, {"problem", w.problem}});
  return {{"bytes", weight_bytes(model)}, {"seconds", check.seconds}, {"wrong", std::move(wrong)}};
}

// 46702792704 -> "46.70 B".
std::string scaled(Index value, double step, std::initializer_list<const char*> units) {
  auto number = static_cast<double>(value);
  auto unit = units.begin();
  while (number >= step && unit + 1 != units.end()) {
    number /= step;
    ++unit;
  }
  return str(fixed(number, unit == units.begin() ? 0 : 2), *unit);
}
std::string parameters_text(const json& n) { return scaled(n.get<Index>(), 1000, {"", " K", " M", " B", " T"}); }
std::string bytes_text(const json& n) { return scaled(n.get<Index>(), 1024, {" B", " KiB", " MiB", " GiB", " TiB"}); }

std::string left(std::string text, std::size_t width) {
  text.resize(std::max(text.size(), width), ' ');
  return text;
}

std::string tensors_text(const json& tensors) {
  std::size_t widest = 0, widest_type = 4;
  const auto name = [](const json& t) { return printable(t["name"].get_ref<const std::string&>()); };
  for (const json& t : tensors) {
    widest = std::max(widest, name(t).size());
    widest_type = std::max(widest_type, t["dtype"].get_ref<const std::string&>().size());
  }
  std::string out;
  for (const json& t : tensors) {
    out += str("  ", left(name(t), widest), "  ", left(t["dtype"], widest_type), "  ",
               left(shape_text(t["shape"].get<std::vector<Index>>()), 20), padded(str(t["count"].get<Index>()), 6),
               " x", padded(bytes_text(t["bytes"].get<Index>() / t["count"].get<Index>()), 12), "\n");
  }
  return out;
}

// What each group of weights is in memory.
std::string groups_text(const json& groups) {
  std::string out;
  for (const json& g : groups) {
    out += str("    ", left(g["group"], 16), "  ", left(g["formats"], 8), "  ", bytes_text(g["bytes"]), "\n");
  }
  return out;
}

std::string check_text(const json& check) {
  std::string out = "check\n";
  for (const json& w : check["wrong"])
    out += str("  ", w["name"].get<std::string>(), ": ", w["problem"].get<std::string>(), "\n");
  const double bytes = check["bytes"].get<double>();
  return str(out, "  ", verdict(check["wrong"].size()), ", ", bytes_text(check["bytes"]), " at ",
             fixed(1e-9 * bytes / check["seconds"].get<double>(), 1), " GB/s\n");
}

}  // namespace

std::string verdict(std::size_t n_wrong) {
  return n_wrong == 0 ? "all weights are sound"
                      : str(n_wrong, n_wrong == 1 ? " tensor is" : " tensors are", " not sound");
}

json checkpoint_json(const Checkpoint& checkpoint, const MemoryNeeds& memory, const std::optional<WeightCheck>& check) {
  const Model& model = checkpoint.model;
  const ParameterCount parameters = count_parameters(model.config);
  json out = {{"config", config_json(model.config)},
              {"tensors", tensors_json(checkpoint.tensors)},
              {"n_tensors", checkpoint.tensors.size()},
              {"parameters", {{"total", parameters.total}, {"active_per_token", parameters.active}}},
              {"memory", memory_json(checkpoint, memory)},
              {"notes", checkpoint.notes}};
  const RopeScaling& scaling = model.config.rope_scaling;
  if (scaling.kind != RopeScaling::Kind::kNone) out["config"]["rope_scaling"] = scaling_json(scaling);
  if (check) out["check"] = check_json(model, *check);
  return out;
}

std::string checkpoint_text(const json& r) {
  std::string out = "config\n";
  for (const auto& [key, value] : r["config"].items()) out += str("  ", left(key, 20), value.dump(), "\n");
  out += str("tensors\n", tensors_text(r["tensors"]));
  const json &parameters = r["parameters"], &memory = r["memory"];
  out += str("parameters\n  total               ", parameters_text(parameters["total"]), "\n  active per token    ",
             parameters_text(parameters["active_per_token"]), "\n");
  out += str("memory\n  weights             ", bytes_text(memory["weights_bytes"]), " in ", r["n_tensors"].get<Index>(),
             " tensors, ", memory["weights_mapped"].get<bool>() ? "mapped from the files" : "imported into memory",
             "\n", memory["weights_mapped"].get<bool>() ? "" : groups_text(memory["weights"]), "  KV cache            ",
             bytes_text(memory["kv_cache_bytes_per_1024_tokens"]), " per 1024 tokens, ",
             bytes_text(memory["kv_cache_bytes_at_max_positions"]), " at the full context, in ",
             memory["kv_cache_type"].get<std::string>(), "\n  working memory      ",
             bytes_text(memory["working_bytes"]), " while a prompt is read\n");
  if (!r["notes"].empty()) out += "notes\n";
  for (const json& note : r["notes"]) out += str("  ", note.get<std::string>(), "\n");
  if (r.contains("check")) out += check_text(r["check"]);
  return out;
}

}  // namespace mixtral::report
