// Decode and prefill of a model of Mixtral 8x7B's shape with random bf16 weights, against the machine's
// ceilings probed just before and after each repetition. Prints one JSON object.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>

#include "mixtral/core/openmp_executor.hpp"
#include "mixtral/io/huggingface.hpp"
#include "mixtral/io/write_huggingface.hpp"
#include "mixtral/runtime/isa.hpp"
#include "mixtral/runtime/session.hpp"
#include "support/probes.hpp"

namespace {

using namespace mixtral;
using Json = nlohmann::json;

struct Options {
  Index layers = 2, prompt = 128, decode = 16;
  int repeat = 5, threads = 2;
  std::string isa = std::string(name_of(best_isa()));
  std::string model, save;
};

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

ModelConfig mixtral_8x7b(Index layers) {
  ModelConfig c;
  c.dim = 4096, c.hidden_dim = 14336, c.n_layers = layers, c.n_heads = 32, c.n_kv_heads = 8, c.head_dim = 128;
  c.n_experts = 8, c.n_experts_per_tok = 2, c.vocab_size = 32000, c.max_positions = 32768;
  return c;
}

// Random signs and mantissas between 2^-8 and 2^-6 in magnitude; norms are 1.
Model synthetic_model(const ModelConfig& config) {
  const auto arena =
      std::make_shared<bench::Arena>(static_cast<std::size_t>(2 * count_parameters(config).total + 64 * 4096));
  auto* words = reinterpret_cast<std::uint64_t*>(arena->data());
  std::uint64_t state = 1;
  for (std::size_t i = 0; i < arena->size() / 8; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    words[i] = ((state ^ state >> 29) & 0x80ff80ff80ff80ffu) | 0x3b003b003b003b00u;
  }
  Model model{config, Weights(config)};
  model.weights.storage = arena;
  std::byte* next = arena->data();
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    model.weights.at(slot) = MatrixView(DType::kBF16, shape[0], shape[1], next);
    if (is_vector(slot.kind)) std::fill_n(reinterpret_cast<bf16*>(next), shape.count(), to_bf16(1.0f));
    next += (2 * shape.count() + 63) / 64 * 64;
  });
  return model;
}

// In memory with huge pages, or mapped from the file of --model as a user's would be.
Model open_model(const Options& o) {
  if (o.model.empty()) return synthetic_model(mixtral_8x7b(o.layers));
  return load_huggingface(o.model);
}

// One measured quantity and its ceiling before and after.
struct Sample {
  double value, ceiling_before, ceiling_after;
  double share() const { return value / (0.5 * (ceiling_before + ceiling_after)); }
  bool steady() const {
    return std::max(ceiling_before, ceiling_after) < 1.1 * std::min(ceiling_before, ceiling_after);
  }
};

Json summary(std::vector<Sample> samples, double per_token, const char* unit) {
  const std::size_t all = samples.size();
  std::erase_if(samples, [](const Sample& s) { return !s.steady(); });
  Json out = {{"runs", samples.size()}, {"dropped", all - samples.size()}, {"unit", unit}};
  if (samples.empty()) return out;
  const auto median = [&](auto of) {
    std::vector<double> v;
    for (const Sample& s : samples) v.push_back(of(s));
    std::sort(v.begin(), v.end());
    return v[v.size() / 2];
  };
  out["tokens_per_second"] = median([&](const Sample& s) { return s.value / per_token; });
  out["rate"] = median([](const Sample& s) { return s.value / 1e9; });
  out["ceiling"] = median([](const Sample& s) { return 0.5e-9 * (s.ceiling_before + s.ceiling_after); });
  out["percent_of_ceiling"] = median([](const Sample& s) { return 100 * s.share(); });
  return out;
}

Json run(const Options& o) {
  const Isa isa = isa_from_name(o.isa);
  const KernelTable table = make_table(isa);
  OpenMpExecutor executor(o.threads);
  const Model model = open_model(o);
  const ModelConfig& c = model.config;
  bench::Arena probe_arena(std::size_t{1} << 30);
  std::fill_n(probe_arena.data(), probe_arena.size(), std::byte{1});
  const double active =
      static_cast<double>(count_parameters(c).active - c.vocab_size * c.dim);  // a lookup is no product
  const double head = static_cast<double>(c.vocab_size * c.dim);

  std::mt19937 random(7);
  std::vector<Sample> decode, prefill;
  for (int r = 0; r <= o.repeat; ++r) {
    Session session(model, table, executor, {.max_positions = o.prompt + o.decode});
    const auto token = [&] { return static_cast<TokenId>(random() % static_cast<unsigned>(c.vocab_size)); };
    for (Index i = 0; i < o.prompt; ++i) session.feed(token());
    const double fma_before = bench::fma_rate(o.threads, isa == Isa::kAvx512);
    const double begin = seconds();
    session.eval();
    const double prefill_time = seconds() - begin;
    const double fma_after = bench::fma_rate(o.threads, isa == Isa::kAvx512);

    const double dram_before = bench::dram_read_rate(probe_arena, o.threads);
    const double start = seconds();
    for (Index i = 0; i < o.decode; ++i) {
      session.feed(token());
      session.eval();
    }
    const double decode_time = seconds() - start;
    const double dram_after = bench::dram_read_rate(probe_arena, o.threads);
    if (r == 0) continue;  // warm-up
    const double operations = 2 * ((active - head) * static_cast<double>(o.prompt) + head);
    prefill.push_back({operations / prefill_time, fma_before, fma_after});
    decode.push_back({2 * active * static_cast<double>(o.decode) / decode_time, dram_before, dram_after});
  }
  return {{"isa", o.isa},
          {"threads", o.threads},
          {"layers", c.n_layers},
          {"memory", o.model.empty() ? "anonymous, huge pages" : "mapped file"},
          {"machine", bench::machine_name()},
          {"weights", "bf16"},
          {"prompt_tokens", o.prompt},
          {"decode_tokens", o.decode},
          {"prefill", summary(prefill, 2 * ((active - head) + head / static_cast<double>(o.prompt)),
                              "GFLOP/s, float32 multiply-add")},
          {"decode", summary(decode, 2 * active, "GB/s of weights, DRAM read")}};
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  CLI::App app("Decode and prefill of a model of Mixtral 8x7B's shape, random bf16 weights, against probed ceilings.");
  app.add_option("--layers", o.layers, "Layers of 1.45 G weights (2.9 GB) each");
  app.add_option("-p,--prompt", o.prompt, "Prompt tokens");
  app.add_option("-n,--decode", o.decode, "Decoded tokens");
  app.add_option("--repeat", o.repeat, "Counted repetitions after one warm-up");
  app.add_option("--threads", o.threads, "Worker threads");
  app.add_option("--isa", o.isa, "Instruction set: reference, avx2, avx512");
  app.add_option("--model", o.model, "A Hugging Face directory to map instead of random weights in memory");
  app.add_option("--save", o.save, "Only write the random model to this directory");
  CLI11_PARSE(app, argc, argv);
  try {
    if (!o.save.empty()) {
      const Model model = synthetic_model(mixtral_8x7b(o.layers));
      write_huggingface(o.save, model.config, model.weights);
      return 0;
    }
    std::cout << run(o).dump(2) << "\n";
  } catch (const std::exception& e) {
    std::cerr << "model_bench: " << e.what() << "\n";
    return 1;
  }
}
