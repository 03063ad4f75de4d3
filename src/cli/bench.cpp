// `mixtral bench`: tokens a second, and how near that is to what this machine can do.
#include <CLI/CLI.hpp>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/arguments.hpp"
#include "cli/bench_run.hpp"
#include "cli/commands.hpp"
#include "cli/loaded_model.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/io/packed.hpp"
#include "mixtral/io/synthetic.hpp"
#include "probes/probes.hpp"
#include "report/bench_tables.hpp"

namespace mixtral::cli {
namespace {

struct Options {
  CommonOptions common;
  std::string synthetic, weights = "p4";
  Index layers = 2;
  report::BenchPlan plan;
};

struct BenchModel {
  LoadedModel loaded;
  std::string name, memory;
  Index anonymous_bytes = 0;
};

// Random weights, packed in memory as a file would have them.
BenchModel synthetic_model(const Options& o, const KernelTable& table, Executor& executor) {
  Scratch scratch;
  SyntheticWeights source(executor);
  const DType dtype = weights_format(o.weights);
  Checkpoint packed = pack_in_memory({table, executor, scratch}, synthetic_config(o.synthetic, o.layers), source,
                                     {.formats = {dtype, dtype, dtype}, .importance = {}, .files = {}, .progress = {}});
  const Index bytes = weight_bytes(packed.model);
  return {LoadedModel(std::move(packed.model), table, executor), o.synthetic, "huge pages", bytes};
}

BenchModel open(const Options& o, const KernelTable& table, Executor& executor) {
  if (!o.synthetic.empty()) return synthetic_model(o, table, executor);
  Model model = load_checkpoint(o.common.model,
                                {.resident = o.common.resident, .executor = &executor, .import = import_of(o.common)})
                    .model;
  const Index bytes = o.common.resident ? weight_bytes(model) : 0;
  return {LoadedModel(std::move(model), table, executor), o.common.model.string(),
          o.common.resident ? "huge pages" : "mapped file", bytes};
}

void run(const Options& o) {
  const KernelTable table = table_of(o.common);
  ThreadExecutor executor(o.common.threads);
  const BenchModel subject = open(o, table, executor);
  const Ceiling ceiling(executor, isa_from_name(table.name));
  report::BenchPlan plan = o.plan;
  plan.kv_dtype = kv_type(o.common.kv);
  std::optional<report::MatrixUnit> matrix_unit;
  if (includes(isa_from_name(table.name), Isa::kAmxInt8)) {
    const auto rate = [&](auto kind) { return probes::byte_product_rate(executor, kind); };
    const double vector_unit = rate(probes::ByteProducts::kVnni);
    matrix_unit = {.from_tokens = table.matrix_unit_tokens,
                   .times_vector_unit = rate(probes::ByteProducts::kAmx) / vector_unit};
  }
  const report::BenchFigures measured = measure(subject.loaded, ceiling, plan);
  const auto result = report::bench_json({.model = subject.loaded.model(),
                                          .name = subject.name,
                                          .memory = subject.memory,
                                          .anonymous_weights = subject.anonymous_bytes,
                                          .isa = table.name,
                                          .matrix_unit = matrix_unit,
                                          .bf16_products = o.common.bf16_products,
                                          .threads = o.common.threads},
                                         plan, measured, ceiling.bytes());
  write_stdout(o.common.json ? result.dump(2) + "\n" : report::bench_text(result));
}

void add_plan_options(CLI::App& command, report::BenchPlan& plan) {
  constexpr Range<Index> kAny{0, Index{1} << 24}, kSome{1, Index{1} << 12};
  const auto add = [&](const char* names, Index& value, Range<Index> range, const char* text) {
    add_number(command, names, value, range, text)->capture_default_str();
  };
  add("-p,--prompt", plan.prompt, kAny, "Tokens of the prompt that is read; 0: none");
  add("-n,--decode", plan.decode, kAny, "Decode steps; 0: none");
  add_numbers(command, "--batch", plan.batch, kSome,
              "Sequences that decode together, one token each a step: 1 or 1,2,8")
      ->capture_default_str();
  add("--ragged", plan.ragged, {0, kSome.most},
      "Read the prompt once more while so many sequences decode in its steps");
  add("--chunk", plan.chunk, {1, Index{1} << 16}, "Tokens of the prompt in one step");
  add("--depth", plan.depth, kAny, "Tokens before them in the KV cache");
  add_number(command, "--repeat", plan.repeat, {1, 1 << 12}, "Repetitions that count, after a warm-up")
      ->capture_default_str();
}

}  // namespace

void add_bench(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("bench", "Tokens a second and the share of what this machine can do");
  command->footer("Example: mixtral bench --synthetic mixtral-8x7b --layers 2 --weights p4 -p 512 -n 64 --json");
  add_common_options(*command, options->common);
  add_kv_option(*command, options->common);
  auto* synthetic = add_synthetic_option(*command, options->synthetic)->excludes("--model");
  add_number(*command, "--layers", options->layers, {1, 1024}, "Layers of the synthetic model")
      ->needs(synthetic)
      ->capture_default_str();
  command->add_option("--weights", options->weights, "What the synthetic weights are in")
      ->check(CLI::IsMember(kWeightsFormats))
      ->needs(synthetic)
      ->capture_default_str();
  add_plan_options(*command, options->plan);
  command->callback([options] { run(*options); });
}

}  // namespace mixtral::cli
