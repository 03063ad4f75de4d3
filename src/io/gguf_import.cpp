#include "io/gguf_import.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "io/ggml_blocks.hpp"
#include "io/packed_format.hpp"
#include "mixtral/core/arena.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/core/float_environment.hpp"
#include "mixtral/ops/pack.hpp"

namespace mixtral {
namespace {

// What some weights need to live.
struct Owned {
  std::shared_ptr<const GgufFiles> files;
  std::vector<std::unique_ptr<const Arena>> arenas;

  std::byte* give(Index bytes) { return arenas.emplace_back(std::make_unique<const Arena>(bytes))->data(); }
};

DType nearest(Index bytes, Index weights) noexcept {
  const double bits = 8 * static_cast<double>(bytes) / static_cast<double>(weights);
  return std::abs(bits - 4.31) <= std::abs(bits - 8.06) ? DType::kP4 : DType::kP8;  // bits a weight of both
}

class Importer {
 public:
  Importer(const std::shared_ptr<const GgufFiles>& files, const OpContext& ctx, QuantizedImport import,
           const ModelConfig& config)
      : files_(files), ctx_(ctx), import_(import), config_(config) {}

  void run(Weights& weights) {
    const auto others = std::make_shared<Owned>();
    others->files = files_;
    for_each_unit(config_, [&](const PackedUnit& unit) {
      if (unit.is_expert()) {
        moe::ExpertWeights& expert = weights.layers[static_cast<std::size_t>(unit.slot.layer)]
                                         .experts[static_cast<std::size_t>(unit.slot.expert)];
        import_expert(unit, expert);
      } else {
        weights.at(unit.slot) = import_one(unit.slot, unit.shape, *others);
      }
    });
    weights.storage = others;
  }
  bool all_dense() const noexcept { return all_dense_; }

 private:
  GgufMatrix find(const TensorSlot& slot, const Shape<2>& shape) {
    const GgufMatrix m = files_->find(slot, shape, config_);
    all_dense_ = all_dense_ && m.is_dense();
    return m;
  }

  void import_expert(const PackedUnit& unit, moe::ExpertWeights& expert) {
    const auto owned = std::make_shared<Owned>();
    owned->files = files_;
    const GgufMatrix w1 = find(unit.part(TensorKind::kW1), unit.shape),
                     w3 = find(unit.part(TensorKind::kW3), unit.shape);
    if (import_ == QuantizedImport::kFloat32 || (w1.is_dense() && w3.is_dense())) {
      expert.w1 = as_floats(w1, *owned);
      expert.w3 = as_floats(w3, *owned);
    } else {
      // Both or none: packed, they are one pair.
      const DType dtype = nearest(w1.bytes() + w3.bytes(), 2 * w1.rows * w1.cols);
      std::byte* const out = owned->give(ops::packed_pair_bytes(dtype, w1.rows, w1.cols));
      Owned room;
      const auto pair = ops::pack_pair(ctx_, as_floats(w1, room), as_floats(w3, room), dtype, {}, out);
      expert.w1 = pair.first;
      expert.w3 = pair.second;
    }
    const Shape<2> down{{unit.shape[1], unit.shape[0]}};
    expert.w2 = import_one(unit.part(TensorKind::kW2), down, *owned);
    expert.owner = owned;
  }

  MatrixView import_one(const TensorSlot& slot, const Shape<2>& shape, Owned& owned) {
    const GgufMatrix m = find(slot, shape);
    const bool stays = m.is_dense() || import_ == QuantizedImport::kFloat32 || !may_be_packed(group_of(slot.kind));
    if (stays) return as_floats(m, owned);
    const DType dtype = nearest(m.bytes(), m.rows * m.cols);
    std::byte* const out = owned.give(ops::packed_bytes(dtype, m.rows, m.cols));
    Owned room;
    return ops::pack(ctx_, as_floats(m, room), dtype, {}, out);
  }

  MatrixView as_floats(const GgufMatrix& m, Owned& owned) {
    return m.is_dense() ? m.dense() : dequantized(m, ctx_.executor, owned.give(m.float_bytes()));
  }

  std::shared_ptr<const GgufFiles> files_;
  const OpContext& ctx_;
  QuantizedImport import_;
  const ModelConfig& config_;
  bool all_dense_ = true;
};

}  // namespace

MatrixView dequantized(const GgufMatrix& m, Executor& executor, std::byte* out) {
  constexpr Index kTask = Index{1} << 18;  // weights
  const Index rows = std::max<Index>(1, kTask / m.cols);
  executor.parallel_for((m.rows + rows - 1) / rows, [&](Index i, int) {
    const Index begin = i * rows, n = std::min(rows, m.rows - begin);
    const std::byte* const from = m.data + begin * m.row_bytes();
    dequantize(m.type, from, n * m.cols, reinterpret_cast<float*>(out) + begin * m.cols);
    release_mapped({from, static_cast<std::size_t>(n * m.row_bytes())});
  });
  return {DType::kF32, m.rows, m.cols, out};
}

void import_weights(const std::shared_ptr<const GgufFiles>& files, const OpContext& ctx, QuantizedImport import,
                    Checkpoint& out) {
  const FloatScope floats;
  Importer importer(files, ctx, import, out.model.config);
  out.model.weights = Weights(out.model.config);
  importer.run(out.model.weights);
  out.mapped = importer.all_dense();
}

}  // namespace mixtral
