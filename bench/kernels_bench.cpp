// Single kernels at Mixtral 8x7B's shapes, per instruction set: BM_<op>/<isa>/<shape>. Products run on all threads, as
// in a running model, and their weights are larger than the caches. The counter `%ceiling` compares with a probe of the
// resource that bounds the kernel, taken just before and after; `steady` is 0 where the two differ by over 10%.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <random>
#include <utility>
#include <vector>

#include "mixtral/core/thread_executor.hpp"
#include "mixtral/moe/expert_ffn.hpp"
#include "mixtral/moe/router.hpp"
#include "mixtral/ops/attention.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/available_threads.hpp"
#include "mixtral/runtime/huge_pages.hpp"
#include "probes/probes.hpp"
#include "probes/statistics.hpp"
#include "support/packed.hpp"

namespace {

using namespace mixtral;
using bench::random_floats;
using benchmark::State;

// 1 GiB of weights, more than any cache: all benchmarks read slices of it in turn.
const Arena& weights() {
  static const Arena arena(probes::kDramBytes);
  return arena;
}

// What the weights are filled with.
std::string g_filled;

// Fills the weights unless they are these already: the library calls a benchmark several times.
template <class Fill>
void fill_once(const std::string& name, Fill&& fill) {
  if (name != g_filled) fill();
  g_filled = name;
}

// Numbers between 2^-9 and 2^-7, as bf16 and as float32.
void fill_dense() {
  fill_once("dense", [] {
    auto* words = reinterpret_cast<std::uint16_t*>(weights().data());
    for (std::size_t i = 0; i < weights().size() / 2; ++i) {
      words[i] = static_cast<std::uint16_t>(0x3b00 | (i * 40503u >> 4 & 0x80ff));
    }
  });
}

ThreadExecutor& all_threads() {
  static ThreadExecutor executor(available_threads());
  return executor;
}

enum class Resource { kDram, kF32, kByteProducts };

double probe(Executor& executor, Resource resource, Isa isa) {
  switch (resource) {
    case Resource::kDram: return probes::dram_read_rate(weights(), executor);
    case Resource::kF32: return probes::f32_rate(executor, isa);
    default: return probes::byte_product_rate(executor, isa);
  }
}

// Of one call.
struct Work {
  Index bytes = 0, operations = 0;
};

// Runs `body` in the benchmark's loop.
template <class Body>
void measure(State& state, Executor& executor, Isa isa, Resource resource, Work work, Body body) {
  const double before = probe(executor, resource, isa);
  Index calls = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (auto _ : state) {
    body(calls++);
    benchmark::ClobberMemory();
  }
  const double time = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  const double after = probe(executor, resource, isa);
  const auto rate = [&](Index amount) { return static_cast<double>(amount * calls) / time; };
  const double ceiling = 0.5 * (before + after);
  state.counters["%ceiling"] = 100 * rate(resource == Resource::kDram ? work.bytes : work.operations) / ceiling;
  state.counters["steady"] = probes::steady(before, after);
  state.SetBytesProcessed(work.bytes * calls);
  if (work.operations > 0) state.counters["TOPS"] = 1e-12 * rate(work.operations);
}

// y = x w^T of one matrix after the other.
void run_linear(State& state, Isa isa, std::span<const MatrixView> matrices, Resource many_tokens) {
  const Index rows = matrices[0].rows, cols = matrices[0].cols, tokens = state.range(2);
  const KernelTable table = make_table(isa);
  const auto x = random_floats(tokens * cols);
  std::vector<float> y(static_cast<std::size_t>(tokens * rows));
  Scratch scratch;
  const Resource resource = tokens <= 16 ? Resource::kDram : many_tokens;
  const Work work{matrices[0].bytes(), 2 * rows * cols * tokens};
  measure(state, all_threads(), isa, resource, work, [&](Index call) {
    ops::linear({table, all_threads(), scratch}, matrices[static_cast<std::size_t>(call) % matrices.size()],
                TensorView<const float, 2>(x.data(), Shape<2>{{tokens, cols}}),
                TensorView<float, 2>(y.data(), Shape<2>{{tokens, rows}}));
  });
}

void BM_linear_bf16(State& state, Isa isa) {
  const Index rows = state.range(0), cols = state.range(1);
  fill_dense();
  std::vector<MatrixView> matrices;
  for (Index at = 0; at + 2 * rows * cols <= static_cast<Index>(weights().size()); at += 2 * rows * cols) {
    matrices.emplace_back(DType::kBF16, rows, cols, weights().data() + at);
  }
  run_linear(state, isa, matrices, Resource::kF32);
}

template <DType kType>
void BM_linear_packed(State& state, Isa isa) {
  Scratch scratch;
  const KernelTable table = make_table(isa);
  const bench::WeightShape shape{"", state.range(0), state.range(1)};
  std::vector<MatrixView> matrices = bench::packed_matrices(weights(), kType, shape);
  fill_once(str(name_of(kType), ' ', shape.rows, ' ', shape.cols), [&] {
    bench::fill_packed({table, all_threads(), scratch}, matrices);
  });
  run_linear(state, isa, matrices, Resource::kByteProducts);
}

// Whole experts of Mixtral 8x7B, one after the other, on so many rows each: a prompt's share of them.
template <DType kType>
void BM_expert(State& state, Isa isa) {
  constexpr Index kDim = 4096, kHidden = 14336;
  const Index rows = state.range(0);
  const KernelTable table = make_table(isa);
  Scratch scratch(huge_pages());
  const OpContext ctx{table, all_threads(), scratch};
  const Index pair_bytes = ops::packed_pair_bytes(kType, kHidden, kDim),
              bytes = ops::packed_bytes(kType, kDim, kHidden);
  std::vector<moe::ExpertWeights> experts;
  for (Index at = 0; at + pair_bytes + bytes <= static_cast<Index>(weights().size()); at += pair_bytes + bytes) {
    const std::byte* pair = weights().data() + at;
    experts.push_back({MatrixView::packed(kType, kHidden, kDim, pair, PanelPart::kFirst),
                       MatrixView::packed(kType, kDim, kHidden, pair + pair_bytes),
                       MatrixView::packed(kType, kHidden, kDim, pair, PanelPart::kSecond)});
  }
  fill_once(str(name_of(kType), " experts"), [&] {
    for (const moe::ExpertWeights& e : experts) {
      const MatrixView both = MatrixView::packed(kType, 2 * kHidden, kDim, e.w1.data);  // the same panels
      for (const MatrixView& w : {both, e.w2}) bench::fill_packed(ctx, {&w, 1});
    }
  });
  const auto x = random_floats(rows * kDim);
  std::vector<float> y(x.size());
  const Work work{pair_bytes + bytes, 6 * kDim * kHidden * rows};
  measure(state, all_threads(), isa, rows <= 16 ? Resource::kDram : Resource::kByteProducts, work, [&](Index call) {
    moe::expert_ffn(ctx, experts[static_cast<std::size_t>(call) % experts.size()],
                    TensorView<const float, 2>(x.data(), Shape<2>{{rows, kDim}}),
                    TensorView<float, 2>(y.data(), Shape<2>{{rows, kDim}}));
  });
}

// A panel's rows of 4096 float32 weights, in cache, to packed ones on one thread; weights per second.
template <DType kType>
void BM_pack(State& state, Isa isa) {
  constexpr Index kCols = 4096;
  const KernelTable table = make_table(isa);
  SerialExecutor executor;
  Scratch scratch;
  const auto dense = random_floats(kPanelRows * kCols);
  const MatrixView w(DType::kF32, kPanelRows, kCols, reinterpret_cast<const std::byte*>(dense.data()));
  std::vector<std::byte> out(static_cast<std::size_t>(ops::packed_bytes(kType, kPanelRows, kCols)));
  for (auto _ : state) ops::pack({table, executor, scratch}, w, kType, {}, out.data());
  state.SetItemsProcessed(state.iterations() * kPanelRows * kCols);
}

// One token's activations, in cache, to bytes; bytes of input per second.
void BM_quantize(State& state, Isa isa) {
  const Index cols = state.range(0);
  const KernelTable table = make_table(isa);
  SerialExecutor executor;
  Scratch scratch;
  const auto x = random_floats(cols);
  for (auto _ : state) {
    const ScratchScope scope(scratch);
    ops::quantize({table, executor, scratch}, TensorView<const float, 2>(x.data(), Shape<2>{{1, cols}}));
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * 4 * cols);
}

// One key/value head's four query heads over a cache of random pages.
struct AttentionBench {
  static constexpr Index kGroup = 4, kHeadDim = 128;
  KvLayout kv;
  std::vector<float> q, work, out;
  std::vector<simd::SoftmaxState> state;
  std::vector<const std::byte*> pages;

  AttentionBench(DType dtype, Index tokens, Index depth)
      : kv{.n_layers = 1, .n_kv_heads = 1, .head_dim = kHeadDim, .dtype = dtype},
        q(random_floats(tokens * kGroup * kHeadDim)),
        work(static_cast<std::size_t>(simd::attention_work(tokens * kGroup, kHeadDim, kHeadDim))),
        out(q.size()),
        state(static_cast<std::size_t>(tokens * kGroup)),
        pages(static_cast<std::size_t>((depth + KvLayout::kPositions - 1) / KvLayout::kPositions)) {
    fill_dense();
  }
  // Other pages at each call.
  void choose_pages(Index call) {
    const Index all = static_cast<Index>(weights().size()) / kv.page_bytes(), n = static_cast<Index>(pages.size());
    for (Index b = 0; b < n; ++b) {
      pages[static_cast<std::size_t>(b)] = weights().data() + (call * n + b) % all * kv.page_bytes();
    }
  }
  void run(const KernelTable& table, Index tokens, Index position) {
    for (Index begin = 0; begin < position + tokens; begin += simd::kKvChunk) {
      table.attention[kv.dtype]({.q = q.data(),
                                 .q_stride = kHeadDim,
                                 .q_token_stride = kGroup * kHeadDim,
                                 .tokens = tokens,
                                 .group = kGroup,
                                 .head_dim = kHeadDim,
                                 .position = position,
                                 .window = 0,
                                 .pages = pages.data(),
                                 .scale_offset = 0,
                                 .k_offset = kv.block().k_offset(),
                                 .v_offset = kv.block().v_offset(),
                                 .v_stride = kHeadDim,
                                 .begin = begin,
                                 .end = begin + simd::kKvChunk,
                                 .scale = 0.088f,
                                 .work = work.data(),
                                 .out = out.data(),
                                 .state = state.data()});
    }
  }
};

// One thread, one token over `depth` positions; many heads in turn.
template <DType kType>
void BM_attention_decode(State& state, Isa isa) {
  const Index depth = state.range(0);
  const KernelTable table = make_table(isa);
  AttentionBench bench(kType, 1, depth);
  SerialExecutor one;
  measure(state, one, isa, Resource::kDram, {.bytes = static_cast<Index>(bench.pages.size()) * bench.kv.page_bytes()},
          [&](Index call) {
            bench.choose_pages(call);
            bench.run(table, 1, depth - 1);
          });
}

// One thread, sixteen tokens of a prompt behind `depth` others.
template <DType kType>
void BM_attention_prompt(State& state, Isa isa) {
  constexpr Index kTokens = 16;
  const Index depth = state.range(0);
  const KernelTable table = make_table(isa);
  AttentionBench bench(kType, kTokens, depth + kTokens);
  bench.choose_pages(0);
  SerialExecutor one;
  const Index pairs = kTokens * depth + kTokens * (kTokens + 1) / 2;
  measure(state, one, isa, Resource::kF32,
          {.operations = 4 * pairs * AttentionBench::kGroup * AttentionBench::kHeadDim},
          [&](Index) { bench.run(table, kTokens, depth); });
}

// Choice of two of eight experts for `tokens` tokens, logits given; items per second.
void BM_top2_of_8(State& state, Isa isa) {
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
  const KernelTable table = make_table(isa);
  const auto gate = random_floats(14336), up = random_floats(14336);
  std::vector<float> h(gate.size());
  for (auto _ : state) {
    table.swiglu(gate.data(), up.data(), 14336, h.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * 14336);
}

using Shapes = std::vector<std::vector<std::int64_t>>;

void add(const char* op, Isa isa, void (*run)(State&, Isa), const std::vector<std::string>& names,
         const Shapes& shapes) {
  auto* b = benchmark::RegisterBenchmark(str("BM_", op, "/", name_of(isa)).c_str(), [=](State& s) { run(s, isa); });
  b->ArgNames(names)->UseRealTime();
  for (const auto& shape : shapes) b->Args(shape);
}

// Adds the op if the instruction set has a kernel of its own for it: `entry(table)` says which.
template <class Entry>
void add_new(const char* op, Isa isa, Isa base, void (*run)(State&, Isa), const std::vector<std::string>& names,
             const Shapes& shapes, Entry entry) {
  if (entry(make_table(isa)) != entry(make_table(base))) add(op, isa, run, names, shapes);
}

// Each shape with each number of tokens.
Shapes product_shapes(std::initializer_list<Index> tokens) {
  Shapes shapes;
  for (const auto& shape : bench::kMixtralShapes) {
    for (const Index n : tokens) shapes.push_back({shape.rows, shape.cols, n});
  }
  return shapes;
}

void add_all(Isa isa, Isa base) {
  const std::vector<std::string> product = {"rows", "cols", "tokens"};
  const Shapes packed = product_shapes({1, 2, 4, 8, 16, 128});
  using Table = KernelTable;
  const auto bf16 = [](const Table& t) { return t.linear[DType::kBF16]; };
  const auto p4 = [](const Table& t) {
    return std::pair(t.packed_linear[DType::kP4], t.packed_linear_tiles[DType::kP4]);
  };
  const auto p8 = [](const Table& t) {
    return std::pair(t.packed_linear[DType::kP8], t.packed_linear_tiles[DType::kP8]);
  };
  add_new("linear_p4", isa, base, BM_linear_packed<DType::kP4>, product, packed, p4);
  add_new("linear_p8", isa, base, BM_linear_packed<DType::kP8>, product, packed, p8);
  const Shapes expert = {{16}, {32}, {64}, {128}, {192}};
  add_new("expert_p4", isa, base, BM_expert<DType::kP4>, {"rows"}, expert, p4);
  add_new("expert_p8", isa, base, BM_expert<DType::kP8>, {"rows"}, expert, p8);
  add_new("linear_bf16", isa, base, BM_linear_bf16, product, product_shapes({1, 4, 128}), bf16);
  add_new("quantize", isa, base, BM_quantize, {"cols"}, {{4096}, {14336}},
          [](const Table& t) { return t.quantize_slab; });
  add_new("pack_p4", isa, base, BM_pack<DType::kP4>, {}, {{}}, [](const Table& t) { return t.pack_slab[DType::kP4]; });
  add_new("pack_p8", isa, base, BM_pack<DType::kP8>, {}, {{}}, [](const Table& t) { return t.pack_slab[DType::kP8]; });
  const auto attention = [](const Table& t) { return t.attention[DType::kF32]; };
  const Shapes depths = {{512}, {4096}};
  add_new("attention_decode_f32", isa, base, BM_attention_decode<DType::kF32>, {"depth"}, depths, attention);
  add_new("attention_decode_bf16", isa, base, BM_attention_decode<DType::kBF16>, {"depth"}, depths, attention);
  add_new("attention_decode_i8", isa, base, BM_attention_decode<DType::kI8>, {"depth"}, depths, attention);
  add_new("attention_prompt_f32", isa, base, BM_attention_prompt<DType::kF32>, {"depth"}, depths, attention);
  add_new("attention_prompt_bf16", isa, base, BM_attention_prompt<DType::kBF16>, {"depth"}, depths, attention);
  add_new("attention_prompt_i8", isa, base, BM_attention_prompt<DType::kI8>, {"depth"}, depths, attention);
  add_new("top2_of_8", isa, base, BM_top2_of_8, {"tokens"}, {{512}}, [](const Table& t) { return t.top2_of_8; });
  add_new("rms_norm", isa, base, BM_rms_norm, {}, {{}}, [](const Table& t) { return t.rms_norm; });
  add_new("swiglu", isa, base, BM_swiglu, {}, {{}}, [](const Table& t) { return t.swiglu; });
}

}  // namespace

int main(int argc, char** argv) {
  for (const Isa isa : all_isas()) {
    if (supported(isa) && isa != Isa::kReference) add_all(isa, base_of(isa));
  }
  benchmark::RegisterBenchmark("BM_top_k_general", BM_top_k_general)->ArgName("tokens")->Arg(512);
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::AddCustomContext("machine", probes::machine_name());
  benchmark::AddCustomContext("threads", str(available_threads()));
  benchmark::RunSpecifiedBenchmarks();
}
