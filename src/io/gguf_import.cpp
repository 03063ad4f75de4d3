#include "io/gguf_import.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "io/copy_bytes.hpp"
#include "io/ggml_blocks.hpp"
#include "io/ggml_panels.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/ops/pack.hpp"

namespace mixtral {
namespace {

DType nearest(Index bytes, Index weights) noexcept {
  const double bits = 8 * static_cast<double>(bytes) / static_cast<double>(weights);
  return std::abs(bits - 4.31) <= std::abs(bits - 8.06) ? DType::kP4 : DType::kP8;  // bits a weight of both
}

TensorSlot part(const TensorSlot& slot, TensorKind kind) noexcept { return {kind, slot.layer, slot.expert}; }

MatrixView view_of(DType dtype, const GgufMatrix& m, const std::byte* data, PanelPart part = PanelPart::kAll) {
  return is_packed(dtype) ? MatrixView::packed(dtype, m.rows, m.cols, data, part)
                          : MatrixView(dtype, m.rows, m.cols, data);
}

std::span<const std::byte> bytes_of(const GgufMatrix& m) { return {m.data, static_cast<std::size_t>(m.bytes())}; }

// Matrices of one type and shape, one, or two interleaved, as panels of the same weights in `out`.
void repack(const GgufMatrix& m, const GgufMatrix* other, DType dtype, Executor& executor, std::byte* out) {
  const Index run = other == nullptr ? kPanelRows : kHalfRows, panels = (m.rows + run - 1) / run;
  const Index panel_bytes = PackedLayout{dtype, m.cols}.panel_bytes();
  std::atomic<bool> finite{true};
  executor.parallel_for(panels, [&](Index p, int) {
    const std::byte* rows[kPanelRows] = {};
    for (Index r = 0; r < kPanelRows; ++r) {
      const GgufMatrix& from = r < run ? m : *other;
      const Index row = p * run + r % run;
      if (row < m.rows) rows[r] = from.data + row * from.row_bytes();
    }
    if (!fill_panel(m.type, rows, m.cols, out + p * panel_bytes)) finite = false;
  });
  require(finite, ErrorCode::kBadFormat, "tensor ", m.tensor, other == nullptr ? "" : " or ",
          other == nullptr ? "" : other->tensor, ": a scale is infinite or no number");
}

// All weights as float32 in `out`, float_bytes() of it.
MatrixView dequantized(const GgufMatrix& m, Executor& executor, std::byte* out) {
  constexpr Index kTask = Index{1} << 18;  // weights
  const Index rows = std::max<Index>(1, kTask / m.cols);
  executor.parallel_for((m.rows + rows - 1) / rows, [&](Index i, int) {
    const Index begin = i * rows, n = std::min(rows, m.rows - begin);
    dequantize(m.type, m.data + begin * m.row_bytes(), n * m.cols, reinterpret_cast<float*>(out) + begin * m.cols);
  });
  return {DType::kF32, m.rows, m.cols, out};
}

}  // namespace

double ImportedGroup::relative_error() const noexcept { return square > 0 ? std::sqrt(squared_error / square) : 0; }

template <class F>
auto GgufImporter::named(const TensorSlot& slot, F&& f) const {
  try {
    return f();
  } catch (const Error& error) {
    fail(error.code(), files_->head().name(), ": ", slot_name(slot), slot.kind == TensorKind::kW1 ? " or w3: " : ": ",
         error.what());
  }
}

GgufMatrix GgufImporter::find(const TensorSlot& slot) const {
  return files_->find(slot, shape_of(config_, slot.kind), config_);
}

DType GgufImporter::type_of(const TensorSlot& slot) const {
  const GgufMatrix m = find(slot);
  const bool packs = import_ == QuantizedImport::kPacked && may_be_packed(group_of(slot.kind));
  if (slot.kind == TensorKind::kW1 || slot.kind == TensorKind::kW3) {
    const GgufMatrix other = find(part(slot, slot.kind == TensorKind::kW1 ? TensorKind::kW3 : TensorKind::kW1));
    if (m.is_dense() && other.is_dense()) return m.type == other.type ? m.dense().dtype : DType::kF32;
    if (!packs) return DType::kF32;
    const std::optional<DType> exact = m.type == other.type ? exact_type(m.type) : std::nullopt;
    return exact.value_or(nearest(m.bytes() + other.bytes(), 2 * m.rows * m.cols));
  }
  if (m.is_dense()) return m.dense().dtype;
  return packs ? exact_type(m.type).value_or(nearest(m.bytes(), m.rows * m.cols)) : DType::kF32;
}

Index GgufImporter::memory_bytes(const TensorSlot& slot) const {
  const GgufMatrix m = find(slot);
  const DType to = type_of(slot);
  if (m.is_dense() && m.dense().dtype == to && !resident_) return 0;
  return view_of(to, m, nullptr).bytes();
}

Index GgufImporter::room_bytes(const TensorSlot& slot) const {
  const DType to = type_of(slot);
  if (!ctx_.table.pack_slab.has(to)) return 0;
  return find(slot).float_bytes() * (slot.kind == TensorKind::kW1 || slot.kind == TensorKind::kW3 ? 2 : 1);
}

MatrixView GgufImporter::describe(const TensorSlot& slot) const {
  const GgufMatrix m = find(slot);
  if (memory_bytes(slot) == 0) return m.dense();
  const bool pair = slot.kind == TensorKind::kW1 || slot.kind == TensorKind::kW3;
  const PanelPart half = slot.kind == TensorKind::kW1 ? PanelPart::kFirst : PanelPart::kSecond;
  return view_of(type_of(slot), m, nullptr, pair ? half : PanelPart::kAll);
}

MatrixView GgufImporter::floats_of(const GgufMatrix& m, ImportedWeights& owner) {
  const MatrixView floats = dequantized(m, ctx_.executor, owner.take(m.float_bytes()));
  release_mapped(bytes_of(m));
  return floats;
}

MatrixView GgufImporter::make(const TensorSlot& slot, ImportedWeights& owner) {
  const GgufMatrix m = find(slot);
  const DType to = type_of(slot);
  if (m.is_dense() && m.dense().dtype == to) {
    if (!resident_) return m.dense();
    std::byte* const out = owner.take(m.bytes());
    copy_bytes(ctx_.executor, m.data, m.bytes(), out);
    release_mapped(bytes_of(m));
    return view_of(to, m, out);
  }
  if (!is_packed(to)) return floats_of(m, owner);
  std::byte* const out = owner.take(ops::packed_bytes(to, m.rows, m.cols));
  if (has_block_scales(to)) {
    repack(m, nullptr, to, ctx_.executor, out);
    release_mapped(bytes_of(m));
    return view_of(to, m, out);
  }
  ImportedWeights room(files_);
  return ops::pack(ctx_, floats_of(m, room), to, {}, out);
}

MatrixView GgufImporter::import_one(const TensorSlot& slot, ImportedWeights& owner) {
  return named(slot, [&] { return make(slot, owner); });
}

moe::ExpertWeights GgufImporter::import_expert(Index layer, Index expert) {
  const TensorSlot s1{TensorKind::kW1, layer, expert}, s2 = part(s1, TensorKind::kW2), s3 = part(s1, TensorKind::kW3);
  const auto owner = std::make_shared<ImportedWeights>(files_);
  moe::ExpertWeights out;
  const DType to = type_of(s1);
  if (!is_packed(to)) {
    out.w1 = import_one(s1, *owner);
    out.w3 = import_one(s3, *owner);
  } else {
    const GgufMatrix w1 = find(s1), w3 = find(s3);
    std::byte* const pair = owner->take(ops::packed_pair_bytes(to, w1.rows, w1.cols));
    named(s1, [&] {
      if (has_block_scales(to)) {
        repack(w1, &w3, to, ctx_.executor, pair);
        release_mapped(bytes_of(w1));
        release_mapped(bytes_of(w3));
      } else {
        ImportedWeights room(files_);
        const MatrixView first = floats_of(w1, room), second = floats_of(w3, room);
        ops::pack_pair(ctx_, first, second, to, {}, pair);
      }
    });
    out.w1 = view_of(to, w1, pair, PanelPart::kFirst);
    out.w3 = view_of(to, w3, pair, PanelPart::kSecond);
  }
  out.w2 = import_one(s2, *owner);
  out.owner = owner;
  return out;
}

void GgufImporter::add_to(std::vector<ImportedGroup>& groups, const TensorSlot& slot) const {
  const GgufMatrix m = find(slot);
  const DType to = type_of(slot);
  if (m.is_dense() && m.dense().dtype == to) return;
  const TensorGroup group = group_of(slot.kind);
  auto found = std::ranges::find_if(
      groups, [&](const ImportedGroup& g) { return g.group == group && g.from == name_of(m.type) && g.to == to; });
  if (found == groups.end()) found = groups.insert(found, {.group = group, .from = name_of(m.type), .to = to});
  found->weights += m.rows * m.cols;
  found->file_bytes += m.bytes();
  found->bytes += memory_bytes(slot);
  if (!ctx_.table.pack_slab.has(to)) return;
  // One panel of each matrix says how far it will be.
  GgufMatrix some = m;
  some.data += m.rows / 2 / kPanelRows * kPanelRows * m.row_bytes();
  some.rows = std::min(kPanelRows, m.rows - m.rows / 2 / kPanelRows * kPanelRows);
  ImportedWeights room(files_);
  const MatrixView exact = dequantized(some, ctx_.executor, room.take(some.float_bytes()));
  std::byte* const out = room.take(ops::packed_bytes(to, some.rows, some.cols));
  const MatrixView packed = named(slot, [&] { return ops::pack(ctx_, exact, to, {}, out); });
  const TensorView<float, 2> back(reinterpret_cast<float*>(room.take(some.float_bytes())),
                                  Shape<2>{{some.rows, some.cols}});
  ops::unpack(packed, back);
  const auto* want = reinterpret_cast<const float*>(exact.data);
  for (Index i = 0; i < some.rows * some.cols; ++i) {
    const double w = want[i], d = w - back.data()[i];
    found->square += w * w;
    found->squared_error += d * d;
  }
}

}  // namespace mixtral
