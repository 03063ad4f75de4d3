// `mixtral bench`: tokens a second, and how near that is to what this machine can do.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/bench_report.hpp"
#include "cli/commands.hpp"
#include "cli/loaded_model.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/ops/pack.hpp"

namespace mixtral::cli {
namespace {

struct Options {
  CommonOptions common;
  std::string synthetic, weights = "p4";
  Index layers = 2;
  Plan plan;
};

struct BenchModel {
  Model model;
  std::string name, memory;
  Index anonymous_bytes = 0;
};

// TEMPORARY until the synthetic source arrives.
ModelConfig mixtral_8x7b(Index layers) {
  ModelConfig c;
  c.dim = 4096, c.hidden_dim = 14336, c.n_layers = layers, c.n_heads = 32, c.n_kv_heads = 8, c.head_dim = 128;
  c.n_experts = 8, c.n_experts_per_tok = 2, c.vocab_size = 32000, c.max_positions = 32768;
  return c;
}

BenchModel synthetic_model(const Options& o, const KernelTable& table, Executor& executor) {
  const ModelConfig config = mixtral_8x7b(o.layers);
  const auto arena = std::make_shared<Arena>(static_cast<std::size_t>(2 * count_parameters(config).total + 64 * 4096));
  Arena scratch_arena(std::size_t{2} * 2 * 14336 * 4096);
  auto* words = reinterpret_cast<std::uint64_t*>(scratch_arena.data());
  std::uint64_t state = 1;
  const auto random = [&](std::byte* to, std::size_t bytes) {
    words = reinterpret_cast<std::uint64_t*>(to);
    for (std::size_t i = 0; i < bytes / 8; ++i) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      words[i] = ((state ^ state >> 29) & 0x80ff80ff80ff80ffu) | 0x3b003b003b003b00u;
    }
  };
  Model model{config, Weights(config)};
  model.weights.storage = arena;
  std::byte* next = arena->data();
  Scratch scratch;
  const OpContext ctx{table, executor, scratch};
  const DType type = o.weights == "p4" ? DType::kP4 : o.weights == "p8" ? DType::kP8 : DType::kBF16;
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    MatrixView& w = model.weights.at(slot);
    using enum TensorKind;
    const bool pack = type != DType::kBF16 && !is_vector(slot.kind) && slot.kind != kGate && slot.kind != kEmbedding;
    if (!pack) {
      random(next, static_cast<std::size_t>(2 * shape.count()));
      w = MatrixView(DType::kBF16, shape[0], shape[1], next);
      if (is_vector(slot.kind)) std::fill_n(reinterpret_cast<bf16*>(next), shape.count(), to_bf16(1.0f));
      next += (2 * shape.count() + 63) / 64 * 64;
      return;
    }
    if (slot.kind == kW3) return;
    random(scratch_arena.data(), static_cast<std::size_t>(2 * 32 * shape[1]));
    const MatrixView one(DType::kBF16, shape[0], shape[1], scratch_arena.data());
    // one panel for all: quick
    const Index rows = std::min<Index>(shape[0], 32);
    if (slot.kind == kW1) {
      const Index bytes = ops::packed_pair_bytes(type, shape[0], shape[1]), panel = bytes / pair_panels_of(shape[0]);
      ops::pack_pair(ctx, one.rows_from(0, 16), one.rows_from(16, 16), type, {}, next);
      for (Index at = panel; at < bytes; at += panel) std::copy_n(next, panel, next + at);
      w = MatrixView::packed(type, shape[0], shape[1], next, PanelPart::kFirst);
      model.weights.at({kW3, slot.layer, slot.expert}) =
          MatrixView::packed(type, shape[0], shape[1], next, PanelPart::kSecond);
      next += (bytes + 63) / 64 * 64;
    } else {
      const Index bytes = ops::packed_bytes(type, shape[0], shape[1]), panel = bytes / panels_of(shape[0]);
      ops::pack(ctx, one.rows_from(0, rows), type, {}, next);
      for (Index at = panel; at < bytes; at += panel) std::copy_n(next, panel, next + at);
      w = MatrixView::packed(type, shape[0], shape[1], next);
      next += (bytes + 63) / 64 * 64;
    }
  });
  return {std::move(model), "mixtral-8x7b", "huge pages", next - arena->data()};
}

BenchModel open(const Options& o, const KernelTable& table, Executor& executor) {
  if (o.synthetic.empty()) return {load_checkpoint(o.common.model), o.common.model.string(), "mapped file"};
  return synthetic_model(o, table, executor);
}

void run(const Options& o) {
  const Isa wanted = o.common.isa.empty() ? best_isa() : isa_from_name(o.common.isa);
  const KernelTable table = make_table(wanted);
  ThreadExecutor executor(o.common.threads);
  const BenchModel subject = open(o, table, executor);
  const Ceiling ceiling(executor, std::min(wanted, best_isa()));
  const Measured measured = measure(subject.model, table, executor, ceiling, o.plan);
  const auto result = bench_json({.model = subject.model,
                                  .name = subject.name,
                                  .memory = subject.memory,
                                  .anonymous_weights = subject.anonymous_bytes,
                                  .isa = name_of(std::min(wanted, best_isa())),
                                  .threads = o.common.threads},
                                 o.plan, measured, ceiling.bytes());
  write_stdout(o.common.json ? result.dump(2) + "\n" : bench_text(result));
}

void add_plan_options(CLI::App& command, Plan& plan) {
  const CLI::Range any(Index{0}, Index{1} << 24), some(Index{1}, Index{1} << 12);
  command.add_option("-p,--prompt", plan.prompt, "Tokens of the prompt that is read; 0: none")
      ->check(any)
      ->capture_default_str();
  command.add_option("-n,--decode", plan.decode, "Decode steps; 0: none")->check(any)->capture_default_str();
  command.add_option("--batch", plan.batch, "Sequences that decode together, one token each a step: 1 or 1,2,8")
      ->delimiter(',')
      ->check(some)
      ->capture_default_str();
  command.add_option("--depth", plan.depth, "Tokens before them in the KV cache")->check(any)->capture_default_str();
  command.add_option("--repeat", plan.repeat, "Repetitions that count, after a warm-up")
      ->check(some)
      ->capture_default_str();
}

}  // namespace

void add_bench(CLI::App& program) {
  const auto options = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("bench", "Tokens a second and the share of what this machine can do");
  command->footer("Example: mixtral bench --synthetic mixtral-8x7b --layers 2 --weights p4 -p 512 -n 64 --json");
  add_common_options(*command, options->common);
  auto* synthetic = command->add_option("--synthetic", options->synthetic, "Random weights in this model's shape")
                        ->check(CLI::IsMember({"mixtral-8x7b"}))
                        ->excludes("--model");
  command->add_option("--layers", options->layers, "Layers of the synthetic model")
      ->check(CLI::Range(Index{1}, Index{1024}))
      ->needs(synthetic)
      ->capture_default_str();
  command->add_option("--weights", options->weights, "What the synthetic weights are in")
      ->check(CLI::IsMember({"p4", "p8", "bf16"}))
      ->needs(synthetic)
      ->capture_default_str();
  add_plan_options(*command, options->plan);
  command->callback([options] { run(*options); });
}

}  // namespace mixtral::cli
