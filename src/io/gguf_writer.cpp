#include "mixtral/io/gguf_writer.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "io/finite.hpp"
#include "io/ggml_quantize.hpp"
#include "io/gguf_config.hpp"
#include "io/gguf_files.hpp"
#include "io/gguf_keys.hpp"
#include "io/overlapped_writer.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/core/float_environment.hpp"

namespace mixtral {
namespace {

constexpr Index kAlignment = 32;

constexpr Index padded(Index bytes) noexcept { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

// One tensor of the file to be: a matrix, or as many as a layer has experts.
struct FileTensor {
  std::string name;
  TensorSlot slot;  // of the first matrix
  Shape<2> shape;   // of each
  GgmlType type = GgmlType::kF32;
  Index n_matrices = 1;

  Index row_bytes() const noexcept { return bytes_of(type, shape[1]); }
  Index matrix_bytes() const noexcept { return shape[0] * row_bytes(); }
  Index bytes() const noexcept { return n_matrices * matrix_bytes(); }
  Index padding() const noexcept { return padded(bytes()) - bytes(); }
};

GgmlType type_of(TensorGroup group, const GgufFormats& formats, bool tied) noexcept {
  switch (group) {
    case TensorGroup::kEmbedding: return tied ? formats.head : formats.embedding;
    case TensorGroup::kAttention: return formats.attention;
    case TensorGroup::kExperts: return formats.experts;
    case TensorGroup::kHead: return formats.head;
    default: return GgmlType::kF32;
  }
}

// The format's number for a file most of whose weights have this type.
Index file_type(GgmlType type) noexcept { return type == GgmlType::kF16 ? 1 : type == GgmlType::kQ4_0 ? 2 : 7; }

class GgufWriter {
 public:
  GgufWriter(const OpContext& ctx, const ModelConfig& config, WeightSource source, const GgufOptions& options)
      : ctx_(ctx), config_(config), source_(source), options_(options) {
    const GgufFormats& f = options.formats;
    for (const GgmlType type : {f.experts, f.attention, f.embedding, f.head}) {
      require(can_quantize(type) && type != GgmlType::kF32, "GGUF: type ", name_of(type),
              ", expected F16, Q8_0 or Q4_0");
    }
    config.validate();
    for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& shape) {
      if (slot.expert <= 0) add(slot, shape);  // the others are in the first one's tensor
    });
    for (const FileTensor& tensor : tensors_) all_ += tensor.bytes();
  }

  // Keys and the list of tensors, up to where data begin.
  std::string header() const {
    std::string out = keys().header(static_cast<Index>(tensors_.size()));
    std::uint64_t offset = 0;
    for (const FileTensor& tensor : tensors_) {
      std::vector<Index> dims = {tensor.shape[1]};  // the fastest first
      if (!is_vector(tensor.slot.kind)) dims.push_back(tensor.shape[0]);
      if (tensor.slot.expert >= 0) dims.push_back(tensor.n_matrices);
      append_gguf(out, std::string_view(tensor.name));
      append_gguf(out, static_cast<std::uint32_t>(dims.size()));
      for (const Index dim : dims) append_gguf(out, static_cast<std::uint64_t>(dim));
      append_gguf(out, static_cast<std::uint32_t>(tensor.type));
      append_gguf(out, offset);
      offset += static_cast<std::uint64_t>(padded(tensor.bytes()));
    }
    out.resize(static_cast<std::size_t>(padded(static_cast<Index>(out.size()))));
    return out;
  }

  void write(const std::filesystem::path& path) {
    AtomicFileWriter file(path);
    const std::string head = header();
    Index data_bytes = 0, most_bytes = 0;
    for (const FileTensor& tensor : tensors_) {
      data_bytes += padded(tensor.bytes());
      most_bytes = std::max(most_bytes, tensor.matrix_bytes() + tensor.padding());
    }
    file.reserve(static_cast<Index>(head.size()) + data_bytes);
    file.write(std::as_bytes(std::span(head)));
    OverlappedWriter pieces(file, most_bytes);
    for (const FileTensor& tensor : tensors_) {
      for (Index i = 0; i < tensor.n_matrices; ++i) {
        fill(tensor, i, pieces.room());
        const Index padding = i + 1 == tensor.n_matrices ? tensor.padding() : 0;
        std::fill_n(pieces.room() + tensor.matrix_bytes(), padding, std::byte{0});
        pieces.write(tensor.matrix_bytes() + padding);
        done_ += tensor.matrix_bytes();
        report();
      }
    }
    pieces.finish();
    file.flush();
    report();
    file.commit();
  }

 private:
  void add(const TensorSlot& slot, const Shape<2>& shape) {
    const bool expert = slot.expert >= 0;
    const GgufNames names = gguf_names(slot);
    const GgmlType type = type_of(group_of(slot.kind), options_.formats, config_.tied_embeddings);
    const GgmlTypeInfo& info = info_of(type);
    const std::string& name = expert ? names.merged : names.own;
    require(shape[1] % info.block_weights == 0, "GGUF: tensor ", name, " has rows of ", shape[1], " weights, ",
            info.name, " has blocks of ", info.block_weights);
    tensors_.push_back({name, slot, shape, type, expert ? config_.n_experts : 1});
  }

  GgufKeys keys() const {
    GgufKeys keys;
    keys.text("general.architecture", "llama");
    keys.text("general.name", options_.name);
    keys.integer("general.alignment", kAlignment);
    keys.integer("general.file_type", file_type(options_.formats.experts));
    keys.integer("general.quantization_version", 2);  // of the blocks' layout
    add_gguf_config(config_, keys);
    if (options_.tokenizer.empty()) return keys;
    const GgufFile tokenizer(std::as_bytes(std::span(options_.tokenizer)), "the tokenizer");
    const GgufKey* const tokens = tokenizer.find_key("tokenizer.ggml.tokens");
    const Index n_tokens = tokens == nullptr ? 0 : tokens->count;
    require(n_tokens == config_.vocab_size, "GGUF: the tokenizer has ", n_tokens, " tokens, the model ",
            config_.vocab_size, " rows");
    for (const GgufKey& key : tokenizer.keys()) keys.copy(key);
    return keys;
  }

  void report() const {
    if (options_.progress) options_.progress(done_, all_);
  }

  MatrixView read(const TensorSlot& slot, const Shape<2>& shape) {
    const MatrixView w = source_(slot, shape);
    require(is_weight(w.dtype), ErrorCode::kUnsupported, slot_name(slot), ": ", name_of(w.dtype),
            " weights cannot be packed again");
    require(w.rows == shape[0] && w.cols == shape[1], slot_name(slot), ": expected ", shape, ", the source gives [",
            w.rows, ", ", w.cols, "]");
    require_finite_routing(slot, w, "GGUF");
    return w;
  }

  // Matrix i of a tensor, [matrix_bytes()].
  void fill(const FileTensor& tensor, Index i, std::byte* out) {
    TensorSlot slot = tensor.slot;
    if (slot.expert >= 0) slot.expert = i;
    const MatrixView w = read(slot, tensor.shape);
    const Index row_bytes = tensor.row_bytes();
    const Index n = std::max<Index>(1, (Index{1} << 18) / w.cols);  // rows of one task
    std::atomic<bool> fits = true;
    ctx_.executor.parallel_for((w.rows + n - 1) / n, [&](Index task, int) {
      for (Index r = task * n; r < std::min(w.rows, (task + 1) * n); ++r) {
        if (!write_row(w, row_of(tensor, r), tensor.type, out + r * row_bytes)) fits = false;
      }
    });
    if (!fits) fail_row(slot, w, tensor.type, out);
  }

  // The row of the source that becomes row r. RoPE turns rows i and i + head_dim / 2 of a head of half-split weights,
  // rows 2i and 2i + 1 of interleaved ones, which is what a GGUF file has.
  Index row_of(const FileTensor& tensor, Index r) const noexcept {
    const bool turned = tensor.slot.kind == TensorKind::kWq || tensor.slot.kind == TensorKind::kWk;
    if (!turned || config_.rope_pairing == RopePairing::kInterleaved) return r;
    const Index i = r % config_.head_dim;
    return r - i + i / 2 + i % 2 * (config_.head_dim / 2);
  }

  bool write_row(const MatrixView& w, Index r, GgmlType type, std::byte* out) const noexcept {
    constexpr Index kPart = 1024;  // whole blocks
    float wide[kPart];
    bool fits = true;
    for (Index k = 0; k < w.cols; k += kPart) {
      const Index n = std::min(kPart, w.cols - k);
      ctx_.table.widen[w.dtype](w.row(r) + k * size_of(w.dtype), n, wide);
      fits = quantize(type, wide, n, out + bytes_of(type, k)) && fits;
    }
    return fits;
  }

  // Finds the first row that does not fit, and its largest weight.
  [[noreturn]] void fail_row(const TensorSlot& slot, const MatrixView& w, GgmlType type, std::byte* scratch) const {
    Index r = 0;
    while (r + 1 < w.rows && write_row(w, r, type, scratch)) ++r;
    std::vector<float> wide(static_cast<std::size_t>(w.cols));
    ctx_.table.widen[w.dtype](w.row(r), w.cols, wide.data());
    const auto less = [](float a, float b) { return !std::isnan(a) && !(std::abs(a) >= std::abs(b)); };  // than a NaN
    fail(ErrorCode::kBadFormat, "GGUF: ", slot_name(slot), " has ", *std::max_element(wide.begin(), wide.end(), less),
         " in row ", r, ", which ", name_of(type), " cannot hold");
  }

  const OpContext& ctx_;
  const ModelConfig& config_;
  WeightSource source_;
  const GgufOptions& options_;
  std::vector<FileTensor> tensors_;
  Index all_ = 0, done_ = 0;
};

}  // namespace

void write_gguf(const std::filesystem::path& path, const OpContext& ctx, const ModelConfig& config, WeightSource source,
                const GgufOptions& options) {
  const FloatScope floats;
  require(config.has_head, ErrorCode::kUnsupported, path.string(),
          ": a GGUF file without a head is one whose head is the embedding: a model without its head has none");
  GgufWriter(ctx, config, source, options).write(path);
}

}  // namespace mixtral
