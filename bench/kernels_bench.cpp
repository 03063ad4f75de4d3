// Single kernels at Mixtral 8x7B's shapes, one thread, per instruction set: BM_<op>/<isa>/<shape>. Weights are
// larger than the caches, as in a running model. The counter `ceiling%` compares with a probe of the resource
// that bounds the kernel, taken just before and after; `steady` is 0 where the two probes differ by over 10%.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <random>
#include <vector>

#include "mixtral/core/executor.hpp"
#include "mixtral/moe/router.hpp"
#include "mixtral/ops/attention.hpp"
#include "mixtral/runtime/isa.hpp"
#include "support/probes.hpp"

namespace {

using namespace mixtral;
using benchmark::State;

std::vector<float> random_floats(Index n) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> out(static_cast<std::size_t>(n));
  for (float& x : out) x = uniform(random);
  return out;
}

// 1 GiB of weights, more than any cache: all benchmarks read slices of it in turn.
const bench::Arena& weights() {
  static const std::unique_ptr<const bench::Arena> arena = [] {
    auto a = std::make_unique<bench::Arena>(std::size_t{1} << 30);
    auto* words = reinterpret_cast<std::uint16_t*>(a->data());
    for (std::size_t i = 0; i < a->size() / 2; ++i) {
      words[i] = static_cast<std::uint16_t>(0x3b00 | (i * 40503u >> 4 & 0x80ff));
    }
    return a;
  }();
  return *arena;
}

enum class Resource { kDram, kFma };

double probe(Resource resource, Isa isa) {
  return resource == Resource::kDram ? bench::dram_read_rate(weights(), 1) : bench::fma_rate(1, isa == Isa::kAvx512);
}

// Runs `body` in the benchmark's loop; `work` is bytes or operations of one call.
template <class Body>
void measure(State& state, Isa isa, Resource resource, double work, Body body) {
  if (!supported(isa)) {
    state.SkipWithError("this CPU has no such instruction set");
    return;
  }
  const double before = probe(resource, isa);
  Index calls = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (auto _ : state) {
    body(calls++);
    benchmark::ClobberMemory();
  }
  const double time = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double after = probe(resource, isa), rate = work * static_cast<double>(calls) / time;
  state.counters["ceiling%"] = 100 * rate / (0.5 * (before + after));
  state.counters["steady"] = std::max(before, after) < 1.1 * std::min(before, after);
  state.counters[resource == Resource::kDram ? "GB/s" : "GFLOP/s"] = rate / 1e9;
}

// y = x w^T, bf16 weights [rows, cols], `tokens` rows of x.
void BM_linear_bf16(State& state, Isa isa) {
  const Index rows = state.range(0), cols = state.range(1), tokens = state.range(2);
  const KernelTable table = make_table(isa);
  const auto x = random_floats(tokens * cols);
  std::vector<float> y(static_cast<std::size_t>(tokens * rows));
  const Index bytes = 2 * rows * cols, slices = static_cast<Index>(weights().size()) / bytes;
  const bool decode = tokens <= 4;
  measure(state, isa, decode ? Resource::kDram : Resource::kFma,
          decode ? static_cast<double>(bytes) : 2.0 * static_cast<double>(rows * cols * tokens), [&](Index call) {
            table.linear[static_cast<int>(DType::kBF16)]({.w = weights().data() + call % slices * bytes,
                                                          .w_row_bytes = 2 * cols,
                                                          .x = x.data(),
                                                          .x_stride = cols,
                                                          .y = y.data(),
                                                          .y_stride = rows,
                                                          .rows = rows,
                                                          .cols = cols,
                                                          .tokens = tokens});
          });
}

// One token of one key/value head's four query heads over `depth` positions; many heads in turn.
void BM_attention_decode(State& state, Isa isa) {
  const Index depth = state.range(0), group = 4;
  const KvLayout kv{.n_layers = 1, .n_kv_heads = 1, .head_dim = 128};
  const KernelTable table = make_table(isa);
  const auto* pool = reinterpret_cast<const float*>(weights().data());
  const Index pages = depth / KvLayout::kPositions, all = static_cast<Index>(weights().size()) / 4 / kv.page_floats();
  std::vector<const float*> list(static_cast<std::size_t>(pages));
  const auto q = random_floats(group * kv.head_dim);
  std::vector<float> out(q.size());
  measure(state, isa, Resource::kDram, static_cast<double>(4 * pages * kv.page_floats()), [&](Index call) {
    for (Index b = 0; b < pages; ++b)
      list[static_cast<std::size_t>(b)] = pool + (call * pages + b) % all * kv.page_floats();
    table.attention({.q = q.data(),
                     .q_stride = kv.head_dim,
                     .group = group,
                     .head_dim = kv.head_dim,
                     .pages = list.data(),
                     .k_offset = kv.k_offset(0, 0),
                     .v_offset = kv.v_offset(0, 0),
                     .v_stride = kv.v_stride(),
                     .first = 0,
                     .end = depth,
                     .scale = 0.088f,
                     .out = out.data(),
                     .out_stride = kv.head_dim});
  });
}

// Choice of two of eight experts for `tokens` tokens, logits given; items per second.
void BM_top2_of_8(State& state, Isa isa) {
  if (!supported(isa)) return state.SkipWithError("this CPU has no such instruction set");
  const Index tokens = state.range(0);
  const KernelTable table = make_table(isa);
  const auto logits = random_floats(tokens * 8);
  std::vector<ExpertId> ids(static_cast<std::size_t>(2 * tokens));
  std::vector<float> chosen(ids.size());
  for (auto _ : state) {
    for (Index t = 0; t < tokens; ++t)
      table.top2_of_8(logits.data() + 8 * t, ids.data() + 2 * t, chosen.data() + 2 * t);
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * tokens);
}

// The same choice by the general path, for comparison.
void BM_top_k_general(State& state) {
  const Index tokens = state.range(0);
  const auto logits = random_floats(tokens * 8);
  ExpertId ids[2];
  float values[2];
  for (auto _ : state) {
    for (Index t = 0; t < tokens; ++t) {
      benchmark::DoNotOptimize(moe::detail::top_k({logits.data() + 8 * t, 8}, ids, values));
    }
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * tokens);
}

// One row of RMSNorm and one of SwiGLU, in cache; bytes of input per second.
void BM_rms_norm(State& state, Isa isa) {
  if (!supported(isa)) return state.SkipWithError("this CPU has no such instruction set");
  const KernelTable table = make_table(isa);
  const auto x = random_floats(4096), weight = random_floats(4096);
  std::vector<float> y(x.size());
  for (auto _ : state) {
    table.rms_norm(x.data(), weight.data(), 1e-5f, 4096, y.data());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * 4 * 4096);
}

void BM_swiglu(State& state, Isa isa) {
  if (!supported(isa)) return state.SkipWithError("this CPU has no such instruction set");
  const KernelTable table = make_table(isa);
  const auto gate = random_floats(14336), up = random_floats(14336);
  std::vector<float> h(gate.size());
  for (auto _ : state) {
    table.swiglu(gate.data(), up.data(), 14336, h.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * 14336);
}

void add(const char* op, Isa isa, void (*run)(State&, Isa), const std::vector<std::string>& names,
         const std::vector<std::vector<std::int64_t>>& shapes) {
  auto* b = benchmark::RegisterBenchmark(str("BM_", op, "/", name_of(isa)).c_str(), [=](State& s) { run(s, isa); });
  b->ArgNames(names)->UseRealTime();
  for (const auto& shape : shapes) b->Args(shape);
}

}  // namespace

int main(int argc, char** argv) {
  for (const Isa isa : all_isas()) {
    if (isa == Isa::kReference) continue;
    add("linear_bf16", isa, BM_linear_bf16, {"rows", "cols", "tokens"},
        {{14336, 4096, 1},
         {14336, 4096, 2},
         {14336, 4096, 4},
         {14336, 4096, 32},
         {14336, 4096, 128},
         {4096, 14336, 1},
         {4096, 14336, 32}});
    add("attention_decode", isa, BM_attention_decode, {"depth"}, {{512}, {4096}});
    add("top2_of_8", isa, BM_top2_of_8, {"tokens"}, {{512}});
    add("rms_norm", isa, BM_rms_norm, {}, {{}});
    add("swiglu", isa, BM_swiglu, {}, {{}});
  }
  benchmark::RegisterBenchmark("BM_top_k_general", BM_top_k_general)->ArgName("tokens")->Arg(512);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
