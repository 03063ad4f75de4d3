// Writes packed files, and the same image into memory.
#include <algorithm>
#include <cstring>
#include <memory>

#include "io/checksum.hpp"
#include "io/copy_bytes.hpp"
#include "io/finite.hpp"
#include "io/overlapped_writer.hpp"
#include "io/packed_format.hpp"
#include "io/safetensors_layout.hpp"
#include "mixtral/core/arena.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/io/packed.hpp"
#include "mixtral/ops/pack.hpp"

namespace mixtral {
namespace {

// One tensor of the file to be.
struct Item {
  std::string name;
  PackedUnit unit{};
  TensorNote note;
  const EmbeddedFile* file = nullptr;  // instead of a unit
  Index bytes = 0;
};

DType format_of(TensorGroup group, const PackFormats& formats, DType stored) noexcept {
  switch (group) {
    case TensorGroup::kAttention: return formats.attention;
    case TensorGroup::kExperts: return formats.experts;
    case TensorGroup::kHead: return formats.head;
    default: return stored;
  }
}

class Packer {
 public:
  Packer(const OpContext& ctx, const ModelConfig& config, WeightSource source, const PackOptions& options)
      : ctx_(ctx), config_(config), source_(source), options_(options) {
    for (const DType dtype : {options.formats.experts, options.formats.attention, options.formats.head}) {
      const bool known = ctx.table.pack_slab.has(dtype) || dtype == DType::kBF16;
      require(known, "pack: format ", name_of(dtype), ", expected P4, P8 or BF16");
    }
    config.validate();
    for_each_unit(config, [&](const PackedUnit& unit) {
      const UnitTypes types = types_of(unit);
      items_.push_back({unit.name(), unit, {types, 0, 0}, nullptr, layout_of(unit, types).bytes});
    });
    for (const EmbeddedFile& file : options.files) {
      const auto bytes = static_cast<Index>(file.contents.size());
      items_.push_back({file.name, {}, {std::nullopt, bytes, 0}, &file, padded_bytes(bytes)});
    }
    for (const Item& item : items_) all_ += item.bytes, most_ = std::max(most_, item.bytes);
  }

  std::vector<Item>& items() noexcept { return items_; }
  Index all_bytes() const noexcept { return all_; }
  Index most_bytes() const noexcept { return most_; }

  // The bytes of one item, [item.bytes], and their sum.
  void fill(Item& item, std::byte* out) {
    try {
      item.file != nullptr ? fill_file(*item.file, item.bytes, out) : fill_unit(item, out);
    } catch (const Error& error) {
      const std::string_view what = error.what();
      const bool named = what.find(item.name) != what.npos;
      fail(error.code(), named ? "" : item.name + ": ", what);
    }
    item.note.sum = checksum({out, static_cast<std::size_t>(item.bytes)});
    done_ += item.bytes;
    report();
  }

  void report() const {
    if (options_.progress) options_.progress(done_, all_);
  }

  // Length, JSON and spaces: a multiple of kPackedAlignment. Sums that are not known yet take the same room.
  std::string header() const {
    SafetensorsMetadata metadata = {{std::string(kFormatKey), std::string(kPackedVersion)},
                                    {std::string(kConfigKey), config_text(config_)},
                                    {std::string(kHeaderKey), str(kSumPrefix, sum_text(0))}};
    std::vector<HeaderTensor> tensors;
    for (const Item& item : items_) {
      metadata.emplace_back(item.name, note_text(item.note));
      tensors.push_back({item.name, DType::kU8, {&item.bytes, 1}, item.bytes});
    }
    std::string header = safetensors_header(tensors, metadata, kPackedAlignment, "pack");
    const HeaderSum own = header_sum(header.substr(8));
    return header.replace(8 + own.place, sum_text(own.sum).size(), sum_text(own.sum));
  }

 private:
  UnitTypes types_of(const PackedUnit& unit) {
    if (options_.type_of) {
      return {options_.type_of(unit.slot), options_.type_of(unit.is_expert() ? unit.part(TensorKind::kW2) : unit.slot)};
    }
    // What stays as it is may have any type: its size shows only in the source.
    const DType chosen = format_of(group_of(unit.slot.kind), options_.formats, DType::kF64);
    return UnitTypes(chosen == DType::kF64 ? source_(unit.slot, unit.shape).dtype : chosen);
  }

  // To become `dtype`.
  MatrixView read(const TensorSlot& slot, const Shape<2>& shape, DType dtype) {
    const MatrixView w = source_(slot, shape);
    require(w.data != nullptr, slot_name(slot), ": no weights are there, of headers alone");
    require(is_weight(w.dtype) || w.dtype == dtype, ErrorCode::kUnsupported, slot_name(slot), ": ", name_of(w.dtype),
            " weights cannot be packed again");
    require(w.rows == shape[0] && w.cols == shape[1], slot_name(slot), ": expected ", shape, ", the source gives [",
            w.rows, ", ", w.cols, "]");
    require_finite_routing(slot, w, "pack");
    return w;
  }

  static void fill_file(const EmbeddedFile& file, Index bytes, std::byte* out) {
    std::memcpy(out, file.contents.data(), file.contents.size());
    std::memset(out + file.contents.size(), 0, static_cast<std::size_t>(bytes) - file.contents.size());
  }

  std::vector<float> importance(const TensorSlot& slot) const {
    return options_.importance ? options_.importance(slot) : std::vector<float>{};
  }

  void fill_unit(const Item& item, std::byte* out) {
    const PackedUnit& unit = item.unit;
    const auto& [own, down] = *item.note.types;
    const UnitLayout layout = layout_of(unit, *item.note.types);
    if (!unit.is_expert()) return write(read(unit.slot, unit.shape, own), unit.slot, own, out, out + layout.bytes);
    const TensorSlot s1 = unit.part(TensorKind::kW1), s2 = unit.part(TensorKind::kW2), s3 = unit.part(TensorKind::kW3);
    const MatrixView w1 = read(s1, unit.shape, own), w3 = read(s3, unit.shape, own);
    const MatrixView w2 = read(s2, Shape<2>{{unit.shape[1], unit.shape[0]}}, down);
    if (is_packed(w1.dtype)) {
      require(w1.part == PanelPart::kFirst && w1.data == w3.data, slot_name(s1), ": packed, and no pair with w3");
      copy(w1, out, out + layout.w2);
    } else if (is_packed(own)) {
      ops::pack_pair(ctx_, w1, w3, own, importance(s1), out);
      zero(out + ops::packed_pair_bytes(own, w1.rows, w1.cols), out + layout.w2);
    } else {
      write(w1, s1, own, out, out + layout.w3);
      write(w3, s3, own, out + layout.w3, out + layout.w2);
    }
    write(w2, s2, down, out + layout.w2, out + layout.bytes);
  }

  // One matrix, zeros behind it.
  void write(const MatrixView& w, const TensorSlot& slot, DType dtype, std::byte* out, std::byte* end) {
    if (is_packed(w.dtype)) return copy(w, out, end);
    if (is_packed(dtype)) {
      ops::pack(ctx_, w, dtype, importance(slot), out);
      zero(out + ops::packed_bytes(dtype, w.rows, w.cols), end);
      return;
    }
    const Index row_bytes = w.cols * size_of(dtype);
    const Index n = std::max<Index>(1, (Index{1} << 20) / row_bytes);  // rows of one task
    ctx_.executor.parallel_for((w.rows + n - 1) / n, [&](Index i, int) {
      for (Index r = i * n; r < std::min(w.rows, (i + 1) * n); ++r) write_row(w, r, dtype, out + r * row_bytes);
    });
    zero(out + w.rows * row_bytes, end);
  }

  // Panels as they are.
  void copy(const MatrixView& w, std::byte* out, std::byte* end) {
    copy_bytes(ctx_.executor, w.data, w.storage_bytes(), out);
    zero(out + w.storage_bytes(), end);
  }

  // As it is, or to bf16.
  void write_row(const MatrixView& w, Index r, DType dtype, std::byte* out) const {
    if (w.dtype == dtype) {
      std::copy_n(w.row(r), w.cols * size_of(dtype), out);
      return;
    }
    constexpr Index kPart = 256;
    float wide[kPart];
    for (Index k = 0; k < w.cols; k += kPart) {
      const Index n = std::min(kPart, w.cols - k);
      ctx_.table.widen[w.dtype](w.row(r) + k * size_of(w.dtype), n, wide);
      std::transform(wide, wide + n, reinterpret_cast<bf16*>(out) + k, [](float x) { return to_bf16(x); });
    }
  }

  static void zero(std::byte* begin, std::byte* end) { std::fill(begin, end, std::byte{0}); }

  const OpContext& ctx_;
  const ModelConfig& config_;
  WeightSource source_;
  const PackOptions& options_;
  std::vector<Item> items_;
  Index all_ = 0, most_ = 0, done_ = 0;
};

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

}  // namespace

MatrixView CheckpointWeights::operator()(const TensorSlot& slot, const Shape<2>&) {
  const bool same = slot.expert >= 0 && slot.layer == at_.layer && slot.expert == at_.expert;
  if (!same) {
    if (checkpoint_.mapped) {
      for (const MatrixView& w : last_) release_mapped({w.data, static_cast<std::size_t>(w.storage_bytes())});
    }
    last_.clear();
    at_ = slot;
  }
  return last_.emplace_back(checkpoint_.model.weights.at(slot));
}

void pack_model(const std::filesystem::path& path, const OpContext& ctx, const ModelConfig& config, WeightSource source,
                const PackOptions& options) {
  Packer packer(ctx, config, source, options);
  AtomicFileWriter file(path);
  const std::string header = packer.header();
  file.reserve(static_cast<Index>(header.size()) + packer.all_bytes());
  file.write(bytes_of(header));
  OverlappedWriter pieces(file, packer.most_bytes());
  for (Item& item : packer.items()) {
    packer.fill(item, pieces.room());
    pieces.write(item.bytes);
  }
  pieces.finish();
  file.rewrite_beginning(bytes_of(packer.header()));
  file.flush();
  packer.report();
  file.commit();
}

Checkpoint pack_in_memory(const OpContext& ctx, const ModelConfig& config, WeightSource source,
                          const PackOptions& options) {
  Packer packer(ctx, config, source, options);
  const auto arena = std::make_shared<Arena>(packer.all_bytes());
  Checkpoint out;
  out.model.config = config;
  out.model.weights = Weights(config);
  std::byte* next = arena->data();
  for (Item& item : packer.items()) {
    packer.fill(item, next);
    if (item.file == nullptr) place_unit(item.unit, *item.note.types, next, out.model.weights);
    next += item.bytes;
  }
  out.files = options.files;
  out.model.weights.own(arena);
  return out;
}

}  // namespace mixtral
