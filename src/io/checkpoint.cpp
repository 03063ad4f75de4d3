// Which loader a checkpoint needs. A further format is one more entry of kFormats.
#include "mixtral/io/checkpoint.hpp"

#include <algorithm>
#include <map>

#include "io/format.hpp"
#include "io/found_instead.hpp"
#include "mixtral/core/arena.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/core/float_environment.hpp"

namespace mixtral {
namespace {

// The first that recognises a path reads it.
constexpr const CheckpointFormat* kFormats[] = {&kGgufFormat, &kPackedFormat, &kHuggingFaceFormat,
                                                &kConsolidatedFormat};

const CheckpointFormat* format_of(const std::filesystem::path& path) {
  if (path.empty()) return nullptr;
  const auto found = std::find_if(std::begin(kFormats), std::end(kFormats),
                                  [&](const CheckpointFormat* format) { return format->recognises(path); });
  return found == std::end(kFormats) ? nullptr : *found;
}

[[noreturn]] void refuse(const std::filesystem::path& path) {
  using enum std::filesystem::file_type;
  std::error_code ignored;
  const auto type = std::filesystem::status(path, ignored).type();
  if (type == not_found) {
    fail(ErrorCode::kNotFound, path.empty() ? "an empty path" : path.string(), ": no such file or directory");
  }
  if (type != directory) fail(ErrorCode::kIo, path.string(), ": neither a directory nor a regular file");
  fail(ErrorCode::kNotFound, path.string(), ": neither config.json nor params.json exists", found_instead(path));
}

// A run of bytes on its way into memory.
struct Piece {
  const std::byte* from;
  std::byte* to;
  std::size_t bytes;
};

// Where weights go: memory of their own for each expert, one piece for all that is no expert's. The halves of a pair
// lie together.
class Mover {
 public:
  // mapped: the bytes come from mapped files, whose pages may be given back.
  explicit Mover(bool mapped) : mapped_(mapped) {}

  // Gives these matrices memory, and its owner. Their bytes are copied by run().
  std::shared_ptr<const void> give_memory(std::span<MatrixView* const> views) {
    constexpr std::size_t kAlignment = 4096;
    std::map<const std::byte*, std::size_t> places;  // where the bytes from an address on go
    std::size_t size = 0;
    for (const MatrixView* view : views) {
      if (!places.emplace(view->data, size).second) continue;
      size += (static_cast<std::size_t>(view->storage_bytes()) + kAlignment - 1) / kAlignment * kAlignment;
    }
    const auto arena = std::make_shared<Arena>(static_cast<Index>(size));
    for (MatrixView* view : views) {
      std::byte* to = arena->data() + places.at(view->data);
      if (view->part != PanelPart::kSecond) add(view->data, to, static_cast<std::size_t>(view->storage_bytes()));
      view->data = to;
    }
    return arena;
  }

  // What the bytes come from must still be there.
  void run(Executor& executor) {
    executor.parallel_for(static_cast<Index>(pieces_.size()), [&](Index i, int) {
      const auto& [from, to, bytes] = pieces_[static_cast<std::size_t>(i)];
      std::copy_n(from, bytes, to);
      if (mapped_) release_mapped({from, bytes});
    });
  }

 private:
  void add(const std::byte* from, std::byte* to, std::size_t bytes) {
    constexpr std::size_t kPiece = std::size_t{4} << 20;
    for (std::size_t at = 0; at < bytes; at += kPiece) {
      pieces_.push_back({from + at, to + at, std::min(kPiece, bytes - at)});
    }
  }

  bool mapped_;
  std::vector<Piece> pieces_;
};

void make_resident(Checkpoint& checkpoint, Executor& executor) {
  Weights moved = checkpoint.model.weights;
  Mover mover(checkpoint.mapped);
  std::vector<MatrixView*> others;
  for_each_tensor(checkpoint.model.config, [&](const TensorSlot& slot, const Shape<2>&) {
    if (group_of(slot.kind) != TensorGroup::kExperts) others.push_back(&moved.at(slot));
  });
  moved.storage = mover.give_memory(others);
  for (LayerWeights& layer : moved.layers) {
    for (moe::ExpertWeights& expert : layer.experts) {
      MatrixView* const views[] = {&expert.w1, &expert.w3, &expert.w2};
      expert.owner = mover.give_memory(views);
    }
  }
  mover.run(executor);
  checkpoint.model.weights = std::move(moved);
  checkpoint.mapped = false;
}

}  // namespace

Checkpoint load_checkpoint(const std::filesystem::path& path, const LoadOptions& options) {
  const FloatScope floats;  // JSON's numbers, and even the standard library's paths are computed with
  const CheckpointFormat* const format = format_of(path);
  if (format == nullptr) refuse(path);
  Checkpoint checkpoint = format->load(path, options);
  SerialExecutor caller;
  // An import has copied already what it had to.
  if (options.resident && checkpoint.mapped)
    make_resident(checkpoint, options.executor == nullptr ? caller : *options.executor);
  return checkpoint;
}

std::vector<EmbeddedFile> read_embedded_files(const std::filesystem::path& path) {
  const CheckpointFormat* const format = format_of(path);
  require(format != nullptr && format->files != nullptr, ErrorCode::kUnsupported, path.string(),
          ": no file that brings others along");
  return format->files(path);
}

Index read_vocab_size(const std::filesystem::path& path) {
  try {
    const CheckpointFormat* const format = format_of(path);
    return format == nullptr ? 0 : format->vocab_size(path);
  } catch (const Error&) {  // a configuration of something else: then nothing is known
    return 0;
  }
}

}  // namespace mixtral
