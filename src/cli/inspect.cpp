// mixtral inspect: what a checkpoint holds and what running it takes. Reads headers only, no weights, unless it is to
// check them.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <tuple>

#include "cli/arguments.hpp"
#include "cli/commands.hpp"
#include "cli/loaded_model.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/io/check_weights.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/io/packed.hpp"
#include "mixtral/model/kv_cache.hpp"
#include "mixtral/runtime/session.hpp"

namespace mixtral::cli {
namespace {

using json = nlohmann::ordered_json;  // fields in the order written here

// Tensors that differ only in the numbers inside their names.
struct Group {
  std::string name;  // "model.layers.*.self_attn.q_proj.weight"
  DType dtype;
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

std::vector<Group> group(const std::vector<CheckpointTensor>& tensors) {
  std::map<std::tuple<std::string, DType, std::vector<Index>>, Group> groups;
  for (const CheckpointTensor& tensor : tensors) {
    const std::string name = with_stars(tensor.name);
    Group& g =
        groups.try_emplace({name, tensor.dtype, tensor.shape}, Group{name, tensor.dtype, tensor.shape}).first->second;
    ++g.count;
    g.bytes += tensor.bytes;
  }
  std::vector<Group> list;
  for (auto& [key, g] : groups) list.push_back(std::move(g));
  return list;
}

// Bytes that one pass over `tokens` tokens of a prompt needs beside weights and cache; scratch blocks double as
// they grow, so up to twice that may be held.
Index working_bytes(const Model& model, const KvLayout& kv, const KernelTable& table, Index tokens, int threads) {
  const ModelConfig& c = model.config;
  // Each worker's: gate and up products of a task, if all tokens have one expert; a matrix unit's sums.
  const MatrixView& w1 = model.weights.layers[0].experts[0].w1;
  const ops::Product gate(table, threads, w1, tokens);
  const Index products = 2 * tokens * gate.task_rows(), tiles = gate.needs_work() ? simd::kTileWork : 0;
  const Index attention = 2 * (c.n_heads + c.n_kv_heads) * c.head_dim + c.head_dim;
  const Index experts = c.n_experts_per_tok * (2 * c.dim + c.hidden_dim) + c.n_experts + 2 * c.n_experts_per_tok;
  return tokens * (2 * c.dim + attention + experts) * static_cast<Index>(sizeof(float)) +
         threads * (products + tiles) * static_cast<Index>(sizeof(float)) +
         ops::attention_scratch_bytes(kv, c.n_heads / c.n_kv_heads, c.max_positions, threads);
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
          {"bos_id", c.bos_id},
          {"eos_ids", c.eos_ids}};
}

struct Options {
  CommonOptions common;
  bool check = false;
  Index chunk = SessionOptions{}.chunk;
};

json memory_json(const Checkpoint& checkpoint, const Options& options) {
  constexpr Index kTokens = 1024;
  const KvLayout kv = kv_layout(checkpoint.model.config, kv_type(options.common.kv));
  const auto cache_bytes = [&](Index tokens) {
    const Index pages = (tokens + KvLayout::kPositions - 1) / KvLayout::kPositions;
    return pages * kv.page_bytes();
  };
  return {{"weights_bytes", weight_bytes(checkpoint.model)},
          {"kv_cache_type", name_of(kv.dtype)},
          {"kv_cache_bytes_per_1024_tokens", cache_bytes(kTokens)},
          {"kv_cache_bytes_at_max_positions", cache_bytes(checkpoint.model.config.max_positions)},
          {"working_bytes",
           working_bytes(checkpoint.model, kv, table_of(options.common), options.chunk, options.common.threads)}};
}

json report(const Checkpoint& checkpoint, const Options& options) {
  const ParameterCount parameters = count_parameters(checkpoint.model.config);
  json tensors = json::array();
  for (const Group& g : group(checkpoint.tensors)) {
    tensors.push_back(
        {{"name", g.name}, {"dtype", name_of(g.dtype)}, {"shape", g.shape}, {"count", g.count}, {"bytes", g.bytes}});
  }
  return {{"config", config_json(checkpoint.model.config)},
          {"tensors", std::move(tensors)},
          {"n_tensors", checkpoint.tensors.size()},
          {"parameters", {{"total", parameters.total}, {"active_per_token", parameters.active}}},
          {"memory", memory_json(checkpoint, options)},
          {"notes", checkpoint.notes}};
}

// The weights, and of a packed file all checksums: how many bytes that were, in what time, and what is wrong.
json check_json(const Checkpoint& checkpoint, const CommonOptions& options) {
  ThreadExecutor executor(options.threads);
  ProgressBar bar("check", 1000);
  const auto show = [&](Index done, Index all) { bar.show(1000 * (done >> 10) / std::max<Index>(all >> 10, 1)); };
  const double begin = seconds();
  json wrong = json::array();
  if (std::filesystem::is_regular_file(options.model)) {
    for (const std::string& name : verify_packed(options.model, executor, show))
      wrong.push_back({{"name", name}, {"problem", "the checksum is not that of the bytes"}});
  }
  for (const NonFiniteTensor& t : check_weights(checkpoint.model, executor, show)) {
    wrong.push_back({{"name", t.name},
                     {"problem", str(t.count, t.count == 1 ? " number is" : " numbers are",
                                     " not finite, the first at [", t.row, ", ", t.col, "]: ", t.value)}});
  }
  const double time = seconds() - begin;
  return {{"bytes", weight_bytes(checkpoint.model)}, {"seconds", time}, {"wrong", std::move(wrong)}};
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
  std::size_t widest = 0;
  const auto name = [](const json& t) { return printable(t["name"].get_ref<const std::string&>()); };
  for (const json& t : tensors) widest = std::max(widest, name(t).size());
  std::string out;
  for (const json& t : tensors) {
    out += str("  ", left(name(t), widest), "  ", left(t["dtype"], 4), "  ",
               left(shape_text(t["shape"].get<std::vector<Index>>()), 20), padded(str(t["count"].get<Index>()), 6),
               " x", padded(bytes_text(t["bytes"].get<Index>() / t["count"].get<Index>()), 12), "\n");
  }
  return out;
}

std::string verdict(const json& check) {
  const std::size_t n = check["wrong"].size();
  return n == 0 ? "all weights are sound" : str(n, n == 1 ? " tensor is" : " tensors are", " not sound");
}

std::string check_text(const json& check) {
  std::string out = "check\n";
  for (const json& w : check["wrong"])
    out += str("  ", w["name"].get<std::string>(), ": ", w["problem"].get<std::string>(), "\n");
  const double bytes = check["bytes"].get<double>();
  return str(out, "  ", verdict(check), ", ", bytes_text(check["bytes"]), " at ",
             fixed(1e-9 * bytes / check["seconds"].get<double>(), 1), " GB/s\n");
}

std::string report_text(const json& r) {
  std::string out = "config\n";
  for (const auto& [key, value] : r["config"].items()) out += str("  ", left(key, 20), value.dump(), "\n");
  out += str("tensors\n", tensors_text(r["tensors"]));
  const json &parameters = r["parameters"], &memory = r["memory"];
  out += str("parameters\n  total               ", parameters_text(parameters["total"]), "\n  active per token    ",
             parameters_text(parameters["active_per_token"]), "\n");
  out += str("memory\n  weights             ", bytes_text(memory["weights_bytes"]), " in ", r["n_tensors"].get<Index>(),
             " tensors, mapped from the files\n  KV cache            ",
             bytes_text(memory["kv_cache_bytes_per_1024_tokens"]), " per 1024 tokens, ",
             bytes_text(memory["kv_cache_bytes_at_max_positions"]), " at the full context, in ",
             memory["kv_cache_type"].get<std::string>(), "\n  working memory      ",
             bytes_text(memory["working_bytes"]), " while a prompt is read\n");
  if (!r["notes"].empty()) out += "notes\n";
  for (const json& note : r["notes"]) out += str("  ", note.get<std::string>(), "\n");
  if (r.contains("check")) out += check_text(r["check"]);
  return out;
}

void run(const Options& options) {
  const Checkpoint checkpoint = load_checkpoint(options.common.model);
  json result = report(checkpoint, options);
  if (options.check) result["check"] = check_json(checkpoint, options.common);
  write_stdout(options.common.json ? result.dump() + "\n" : report_text(result));
  if (options.check && !result["check"]["wrong"].empty())
    fail(ErrorCode::kBadFormat, options.common.model.string(), ": ", verdict(result["check"]));
}

}  // namespace

void add_inspect(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand(
      "inspect", "Config, tensors, parameters and memory needs of a model; reads no weights unless it checks them");
  command->footer("Examples: mixtral inspect --model DIR --json\n          mixtral inspect --model DIR --check");
  add_common_options(*command, options->common);
  add_kv_option(*command, options->common);
  add_number(*command, "--chunk", options->chunk, {1, Index{1} << 16},
             "Tokens of a prompt in one step, which working memory is for")
      ->capture_default_str();
  command->add_flag("--check", options->check,
                    "Look through all weights for numbers that are not finite, and compare the checksums of a packed "
                    "file; exit status 1 if anything is wrong");
  command->callback([options] { run(*options); });
}

}  // namespace mixtral::cli
