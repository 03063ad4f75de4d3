// Which loader a checkpoint needs. A further format is one more line in load_directory().
#include "mixtral/io/checkpoint.hpp"

#include <algorithm>
#include <map>

#include "io/found_instead.hpp"
#include "mixtral/core/arena.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/core/float_environment.hpp"
#include "mixtral/io/consolidated.hpp"
#include "mixtral/io/huggingface.hpp"
#include "mixtral/io/packed.hpp"

namespace mixtral {
namespace {

Checkpoint load_directory(const std::filesystem::path& dir) {
  const bool has_config = may_exist(dir / "config.json"), has_params = may_exist(dir / "params.json");
  if (has_config && (!has_params || has_huggingface_weights(dir))) return load_huggingface(dir);
  if (has_params) return load_consolidated(dir);
  fail(ErrorCode::kNotFound, dir.string(), ": neither config.json nor params.json exists", found_instead(dir));
}

Checkpoint load(const std::filesystem::path& path) {
  using enum std::filesystem::file_type;
  std::error_code ignored;
  switch (std::filesystem::status(path, ignored).type()) {
    case regular: return load_packed(path);
    case directory:
    case none:  // the system will not say: opening a file of it tells the reason
    case unknown: return load_directory(path);
    case not_found:
      fail(ErrorCode::kNotFound, path.empty() ? "an empty path" : path.string(), ": no such file or directory");
    default: fail(ErrorCode::kIo, path.string(), ": neither a directory nor a regular file");
  }
}

// A run of bytes on its way into memory.
struct Piece {
  const std::byte* from;
  std::byte* to;
  std::size_t bytes;
};

// Copies every matrix once; the two halves of a pair lie together.
void make_resident(Checkpoint& checkpoint, Executor& executor) {
  constexpr std::size_t kAlignment = 4096, kPiece = std::size_t{4} << 20;
  std::vector<MatrixView*> views;
  std::map<const std::byte*, std::size_t> places;  // where the bytes from an address on go
  std::size_t size = 0;
  for_each_tensor(checkpoint.config, [&](const TensorSlot& slot, const Shape<2>&) {
    MatrixView& view = checkpoint.weights.at(slot);
    views.push_back(&view);
    if (!places.emplace(view.data, size).second) return;
    size += (static_cast<std::size_t>(view.storage_bytes()) + kAlignment - 1) / kAlignment * kAlignment;
  });
  const auto arena = std::make_shared<Arena>(static_cast<Index>(size));
  std::vector<Piece> pieces;
  for (MatrixView* view : views) {
    std::byte* to = arena->data() + places.at(view->data);
    const auto bytes = view->part == PanelPart::kSecond ? 0 : static_cast<std::size_t>(view->storage_bytes());
    for (std::size_t at = 0; at < bytes; at += kPiece) {
      pieces.push_back({view->data + at, to + at, std::min(kPiece, bytes - at)});
    }
    view->data = to;
  }
  executor.parallel_for(static_cast<Index>(pieces.size()), [&](Index i, int) {
    const auto& [from, to, bytes] = pieces[static_cast<std::size_t>(i)];
    std::copy_n(from, bytes, to);
    if (checkpoint.mapped) release_mapped({from, bytes});
  });
  checkpoint.weights.storage = arena;
  checkpoint.mapped = false;
}

}  // namespace

Checkpoint load_checkpoint(const std::filesystem::path& path, const LoadOptions& options) {
  const FloatScope floats;  // JSON's numbers, and even the standard library's paths are computed with
  Checkpoint checkpoint = load(path);
  SerialExecutor caller;
  if (options.resident) make_resident(checkpoint, options.executor == nullptr ? caller : *options.executor);
  return checkpoint;
}

}  // namespace mixtral
