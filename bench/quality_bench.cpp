// How far packed weights are from the bf16 model that they were made of, on texts that it has not seen, beside a plain
// 4-bit format with a scale for every 32 weights. Prints one JSON object.
#include <array>
#include <cmath>
#include <deque>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "mixtral/core/file.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/ops/pack.hpp"
#include "mixtral/runtime/available_threads.hpp"
#include "mixtral/runtime/comparison.hpp"
#include "mixtral/runtime/isa.hpp"
#include "mixtral/runtime/open_model.hpp"

namespace {

using namespace mixtral;
using Json = nlohmann::ordered_json;

// A copy of a model some of whose matrices were replaced by others, which it owns.
struct Variant {
  std::string name;
  double bits = 16;  // of a replaced weight
  KernelTable table;
  Model model;
  std::deque<Tensor<float, 1>> memory;

  std::byte* take(Index bytes) {
    memory.emplace_back(Shape<1>{{(bytes + 3) / 4}});
    return reinterpret_cast<std::byte*>(memory.back().data());
  }
};

// Calls f(matrix) for attention and head, f(expert) for every expert: what formats apply to.
template <class Matrix, class Expert>
void for_each_linear(Model& model, Matrix&& matrix, Expert&& expert) {
  for (LayerWeights& layer : model.weights.layers) {
    for (MatrixView* w : {&layer.wq, &layer.wk, &layer.wv, &layer.wo}) matrix(*w);
    for (ExpertWeights& e : layer.experts) expert(e);
  }
  matrix(model.weights.head);
}

void pack_variant(Variant& v, const OpContext& op, DType dtype) {
  Index bytes = 0, weights = 0;
  const auto count = [&](const MatrixView& w) { bytes += w.bytes(), weights += w.rows * w.cols; };
  for_each_linear(
      v.model,
      [&](MatrixView& w) {
        w = ops::pack(op, w, dtype, {}, v.take(ops::packed_bytes(dtype, w.rows, w.cols)));
        count(w);
      },
      [&](ExpertWeights& e) {
        const auto pair =
            ops::pack_pair(op, e.w1, e.w3, dtype, {}, v.take(ops::packed_pair_bytes(dtype, e.w1.rows, e.w1.cols)));
        e = {pair.first, ops::pack(op, e.w2, dtype, {}, v.take(ops::packed_bytes(dtype, e.w2.rows, e.w2.cols))),
             pair.second};
        for (const MatrixView* w : {&e.w1, &e.w2, &e.w3}) count(*w);
      });
  v.bits = 8 * static_cast<double>(bytes) / static_cast<double>(weights);
}

// Q4_0: a float16 scale d for 32 weights, w = d * (q - 8), q 4 bits; 4.5 bits a weight. d is searched: of 64 that bring
// the largest weight near -8, the one with the least squared error.
void round_to_q4_0(float* w) {
  constexpr int kWeights = 32;
  float extreme = 0;
  for (int i = 0; i < kWeights; ++i) extreme = std::abs(w[i]) > std::abs(extreme) ? w[i] : extreme;
  if (extreme == 0) return;
  std::array<float, kWeights> best{};
  double least = std::numeric_limits<double>::infinity();
  for (int candidate = 0; candidate < 64; ++candidate) {
    const float d = to_float(to_f16(extreme / (-6.0f - 0.05f * static_cast<float>(candidate))));
    if (d == 0) continue;
    std::array<float, kWeights> rounded;
    double error = 0;
    for (std::size_t i = 0; i < kWeights; ++i) {
      rounded[i] = d * std::clamp(std::nearbyint(w[i] / d), -8.0f, 7.0f);
      error += std::pow(static_cast<double>(rounded[i] - w[i]), 2);
    }
    if (error < least) least = error, best = rounded;
  }
  std::copy(best.begin(), best.end(), w);
}

// Its numbers as float32 weights.
void q4_0_variant(Variant& v, const OpContext& op) {
  const auto replace = [&](MatrixView& w) {
    auto* out = reinterpret_cast<float*>(v.take(w.rows * w.cols * 4));
    for (Index r = 0; r < w.rows; ++r) {
      op.table.widen[static_cast<int>(w.dtype)](w.row(r), w.cols, out + r * w.cols);
      for (Index k = 0; k < w.cols; k += 32) round_to_q4_0(out + r * w.cols + k);
    }
    w = MatrixView(DType::kF32, w.rows, w.cols, reinterpret_cast<const std::byte*>(out));
  };
  for_each_linear(v.model, replace, [&](ExpertWeights& e) { replace(e.w1), replace(e.w2), replace(e.w3); });
  v.bits = 4.5;
}

// The same activations as packed weights get: bytes, a scale for each 512. In the variant only the replaced matrices
// are float32, so the router, in bf16, keeps its own.
KernelTable g_plain;
void linear_of_bytes(const simd::LinearArgs& a) noexcept {
  std::vector<float> x(static_cast<std::size_t>(a.tokens * a.cols));
  for (Index t = 0; t < a.tokens; ++t) {
    for (Index k0 = 0; k0 < a.cols; k0 += kSlabCols) {
      std::int8_t q[kSlabCols];
      simd::SlabMeta meta;
      const Index n = std::min(kSlabCols, a.cols - k0);
      g_plain.quantize_slab(a.x + t * a.x_stride + k0, n, q, &meta);
      for (Index k = 0; k < n; ++k) {
        x[static_cast<std::size_t>(t * a.cols + k0 + k)] = meta.scale * static_cast<float>(q[k]);
      }
    }
  }
  simd::LinearArgs args = a;
  args.x = x.data();
  args.x_stride = a.cols;
  g_plain.linear[0](args);
}

Json figures(const Variant& v, const Comparison& comparison) {
  const ComparisonResult r = comparison.result();
  return {{"weights", v.name},
          {"bits_per_weight", v.bits},
          {"reference_perplexity", std::exp(r.reference_cross_entropy)},
          {"perplexity", std::exp(r.model_cross_entropy)},
          {"kl_mean", r.kl.mean},
          {"kl_p99", r.kl.p99},
          {"same_top1", static_cast<double>(r.n_same_top1) / static_cast<double>(r.n_targets)},
          {"same_experts", r.gating.same_set()},
          {"same_first_expert", r.gating.same_first()},
          {"targets", r.n_targets}};
}

Json run(const std::filesystem::path& dir, const std::vector<std::string>& texts) {
  const OpenedModel opened = open_model(dir);
  g_plain = make_table(best_isa());
  ThreadExecutor executor(available_threads());
  Scratch scratch;
  const OpContext op{g_plain, executor, scratch};
  const Tokenizer& tokenizer = opened.require_tokenizer();

  std::deque<Variant> variants;
  for (const char* name : {"bf16", "P8", "P4", "Q4_0, searched scales, activations as for P4"}) {
    variants.push_back({name, 16, g_plain, opened.model, {}});
  }
  pack_variant(variants[1], op, DType::kP8);
  pack_variant(variants[2], op, DType::kP4);
  q4_0_variant(variants[3], op);
  variants[3].table.linear[0] = linear_of_bytes;

  Json out = Json::array();
  for (const Variant& v : variants) {
    Comparison comparison({opened.model, g_plain}, {v.model, v.table}, executor);
    for (const std::string& path : texts) {
      std::vector<TokenId> all = tokenizer.encode(read_file(path, 1 << 24));
      for (std::size_t begin = 0; begin < all.size();) {
        const std::size_t n = std::min(all.size() - begin, static_cast<std::size_t>(comparison.max_positions()));
        std::vector<TokenId> inputs{tokenizer.vocabulary().bos_id};
        const std::span<const TokenId> targets = std::span(all).subspan(begin, n);
        inputs.insert(inputs.end(), targets.begin(), targets.end() - 1);
        comparison.run(inputs, targets);
        begin += n;
      }
    }
    out.push_back(figures(v, comparison));
  }
  return {{"model", dir.filename().string()}, {"isa", g_plain.name}, {"variants", out}};
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: quality_bench MODEL_DIRECTORY TEXT...\n";
    return 2;
  }
  try {
    std::cout << run(argv[1], {argv + 2, argv + argc}).dump(2) << "\n";
  } catch (const std::exception& e) {
    std::cerr << "quality_bench: " << e.what() << "\n";
    return 1;
  }
}
