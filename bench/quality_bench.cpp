// How far packed weights are from the bf16 model that they were made of, beside a plain 4-bit format with a scale for
// every 32 weights: on texts that the model has not seen, and on texts that it writes itself, of which there are enough
// to tell formats of nearly the same quality apart. Prints one JSON object.
#include <array>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>

#include "mixtral/core/file.hpp"
#include "mixtral/io/packed.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/comparison.hpp"
#include "mixtral/runtime/generate.hpp"
#include "mixtral/runtime/importance.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "mixtral/text/text_pieces.hpp"

namespace {

using namespace mixtral;
using Json = nlohmann::ordered_json;

// A model some of whose matrices were replaced by others.
struct Variant {
  std::string name;
  double bits = 16;  // of a replaced weight
  KernelTable table;
  Model model;
};

// Calls f(slot, shape) for what formats apply to: attention, experts and head.
template <class F>
void for_each_linear(const ModelConfig& config, F&& f) {
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    if (may_be_packed(group_of(slot.kind))) f(slot, shape);
  });
}

Variant packed_variant(const OpContext& op, const Checkpoint& dense, DType dtype, const Importance* importance) {
  CheckpointWeights source(dense);
  PackOptions options{.formats = {dtype, dtype, dtype}, .importance = {}, .files = {}, .progress = {}};
  if (importance != nullptr) options.importance = [&](const TensorSlot& slot) { return importance->of(slot); };
  Model model = pack_in_memory(op, dense.model.config, source, options).model;
  Index bytes = 0, weights = 0;
  for_each_linear(model.config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    bytes += model.weights.at(slot).bytes();
    weights += shape.count();
  });
  const double bits = 8 * static_cast<double>(bytes) / static_cast<double>(weights);
  std::string name(name_of(dtype));
  if (importance != nullptr) name += ", calibrated";
  return {std::move(name), bits, op.table, std::move(model)};
}

// Writes `n` texts of 512 tokens, the first with `seed`, each drawn from the model's own distribution.
std::vector<TextPiece> own_texts(const LoadedModel& model, int n, std::uint64_t seed,
                                 ForwardObserver* observer = nullptr) {
  std::vector<TextPiece> out;
  for (int i = 0; i < n; ++i) {
    Session session(model);
    session.feed(model.config().bos_id);
    GenerateOptions options;
    options.max_tokens = 511;
    options.sampler.seed = seed + static_cast<std::uint64_t>(i);
    const std::vector<TokenId> drawn = generate(session, nullptr, options, observer).ids;
    out.push_back({{model.config().bos_id}, drawn});
    out.back().inputs.insert(out.back().inputs.end(), drawn.begin(), drawn.end() - 1);
  }
  return out;
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

// Its numbers as float32 weights; what stays is `dense`'s, which must outlive the result.
Model q4_0_model(const OpContext& op, const Model& dense) {
  Model model = dense;
  Index all = 0;
  for_each_linear(dense.config, [&](const TensorSlot&, const Shape<2>& shape) { all += shape.count(); });
  const auto memory = std::make_shared<std::vector<float>>(static_cast<std::size_t>(all));
  float* out = memory->data();
  for_each_linear(dense.config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    const MatrixView& w = dense.weights.at(slot);
    model.weights.at(slot) = MatrixView(DType::kF32, shape[0], shape[1], reinterpret_cast<const std::byte*>(out));
    for (Index r = 0; r < shape[0]; ++r, out += shape[1]) {
      op.table.widen[w.dtype](w.row(r), shape[1], out);
      for (Index k = 0; k < shape[1]; k += 32) round_to_q4_0(out + k);
    }
  });
  model.weights.storage = memory;
  return model;
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
  g_plain.linear[DType::kF32](args);
}

// What one format has more than another at the same positions: the mean and its standard error.
template <class F>
Json difference(const Comparison& a, const Comparison& b, F&& value) {
  std::vector<double> all;
  for (std::size_t i = 0; i < a.positions().size(); ++i) {
    all.push_back(value(a.positions()[i]) - value(b.positions()[i]));
  }
  const Distribution d = distribution_of(std::move(all));
  return {{"mean", d.mean}, {"standard_error", d.mean_error}};
}

Json figures(const Variant& v, const Comparison& comparison, const Comparison& beside) {
  const ComparisonResult r = comparison.result();
  return {{"weights", v.name},
          {"bits_per_weight", v.bits},
          {"reference_perplexity", std::exp(r.reference_cross_entropy)},
          {"perplexity", std::exp(r.model_cross_entropy)},
          {"kl_mean", r.kl.mean},
          {"kl_p99", r.kl.p99},
          {"kl_p99_low", r.kl.p99_low},
          {"kl_p99_high", r.kl.p99_high},
          {"cross_entropy_over_last", difference(comparison, beside, [](const auto& p) { return p.model_nll; })},
          {"kl_over_last", difference(comparison, beside, [](const auto& p) { return p.kl; })},
          {"same_top1", static_cast<double>(r.n_same_top1) / static_cast<double>(r.n_targets)},
          {"same_experts", r.gating.same_set()},
          {"same_first_expert", r.gating.same_first()},
          {"targets", r.n_targets}};
}

Json run(const std::filesystem::path& dir, const std::vector<std::string>& texts) {
  const LoadedModel dense(dir);
  g_plain = dense.table;
  Scratch scratch;
  const OpContext op{g_plain, *dense.executor, scratch};

  Importance importance(dense.config());
  own_texts(dense, 16, 1, &importance);  // other texts than those measured on
  std::vector<Variant> variants = {{"bf16", 16, g_plain, dense.model()}};
  variants.push_back(packed_variant(op, dense.checkpoint, DType::kP8, nullptr));
  variants.push_back(packed_variant(op, dense.checkpoint, DType::kP4, nullptr));
  variants.push_back(packed_variant(op, dense.checkpoint, DType::kP4, &importance));
  variants.push_back({"Q4_0, searched scales, activations as for P4", 4.5, g_plain, q4_0_model(op, dense.model())});
  variants.back().table.linear[DType::kF32] = linear_of_bytes;
  std::vector<LoadedModel> models;
  for (const Variant& v : variants) models.emplace_back(v.model, v.table, *dense.executor);

  std::vector<TextPiece> held_out;
  for (const std::string& path : texts) {
    for (TextPiece& piece :
         text_pieces(read_file(path, 1 << 30), dense.require_tokenizer(), dense.config().max_positions)) {
      held_out.push_back(std::move(piece));
    }
  }
  const std::vector<TextPiece> own = own_texts(dense, 100, 1000);
  const auto measured = [&](const std::vector<TextPiece>& pieces) {
    std::vector<Comparison> comparisons;
    for (const LoadedModel& model : models) {
      comparisons.emplace_back(dense, model);
      for (const TextPiece& piece : pieces) comparisons.back().run(piece.inputs, piece.targets);
    }
    Json out = Json::array();
    for (std::size_t i = 0; i < variants.size(); ++i) {
      out.push_back(figures(variants[i], comparisons[i], comparisons.back()));
    }
    return out;
  };
  return {{"model", dir.filename().string()},
          {"isa", g_plain.name},
          {"variants", measured(held_out)},
          {"own_text", measured(own)}};
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
