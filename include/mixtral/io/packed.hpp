// Packed files: a model's weights as the kernels read them, its configuration and its tokenizer, in one file.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/io/checkpoint.hpp"
#include "mixtral/ops/context.hpp"

namespace mixtral {

// The container is safetensors, so that other programs can list it. All tensors are U8 with sizes that are multiples of
// 4096, and data begin at a multiple of 4096. One tensor per matrix or vector under the library's own name
// ("layers.3.wq", slot_name()), one per expert ("layers.3.experts.5"), the embedded files ("tokenizer.model") last.
//
// __metadata__ has, all strings:
//   "mixtral.format"  "1"
//   "mixtral.config"  ModelConfig as JSON, its fields by name; rope_scaling only where there is one
//   "mixtral.header"  "xxh3:" and the checksum of the header's JSON, its padding included, with zeros for these digits
//   of each tensor    its format and the XXH3 checksum (64 bits, hexadecimal) of all its bytes: "P4
//   xxh3:0123456789abcdef"; of an expert whose w2 has another format than w1 and w3 both: "Q4_K P8 xxh3:...";
//                     of an embedded file its length instead of the format: "file 497 xxh3:..."
//
// F32, F16 and BF16 are row-major; the packed types are core/packed_layout.hpp. An expert is w1 and w3 interleaved,
// then w2, or w1, w3, w2 row-major; each of these parts begins at a multiple of 4096.

// Maps the file; no weight is copied. Throws Error(kNotFound | kIo | kBadFormat | kUnsupported) that names file, tensor
// and numbers; kNotFound also if a head is required of a file that was packed without. Of the checksums only those of
// the embedded files are looked at.
Checkpoint load_packed(const std::filesystem::path& path, Head head = Head::kRequired);

// Reads the whole file and compares all checksums, all workers at once. Returns the names of the tensors that differ,
// "layers.3.experts.5", in the file's order; "header" first if that was changed. `progress` gets the bytes that are
// done and all, from one worker at a time. Throws as load_packed() does, and Error(kIo) if the disk cannot be read.
std::vector<std::string> verify_packed(const std::filesystem::path& path, Executor& executor,
                                       const std::function<void(Index done, Index all)>& progress = {});

// How each kind of matrix is written: kP4, kP8 or kBF16. Embedding, norms and router stay as they are.
struct PackFormats {
  DType experts = DType::kP4, attention = DType::kP4, head = DType::kP4;
};

// Where weights come from. Views stay valid until the first call for another layer's or another expert's slot.
using WeightSource = FunctionRef<MatrixView(const TensorSlot&, const Shape<2>&)>;

// The weights of a model that is open. Where they are mapped, the system may take back the pages of what was packed: a
// model larger than memory passes through it.
class CheckpointWeights {
 public:
  // `checkpoint` must outlive this.
  explicit CheckpointWeights(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  MatrixView operator()(const TensorSlot& slot, const Shape<2>& shape);

 private:
  const Checkpoint& checkpoint_;
  TensorSlot at_{TensorKind::kEmbedding};
  std::vector<MatrixView> last_;  // of the tensor or expert at_
};

struct PackOptions {
  PackFormats formats;
  // Weights of importance of a matrix's input channels, [cols] or empty (ops/pack.hpp); asked for w1 alone of w1 and
  // w3, which are packed together. Default: all count the same. runtime/importance.hpp measures them.
  std::function<std::vector<float>(const TensorSlot&)> importance;
  std::vector<EmbeddedFile> files;
  // Bytes that are packed, of all; once more when all are on the disk and the file is about to appear. What it throws
  // ends the packing.
  std::function<void(Index done, Index all)> progress;
  // In place of `formats`: the format of each matrix, of w1 and w3 the same (GgufWeights::type_of). Packed ones that
  // the source has in this format are copied.
  std::function<DType(const TensorSlot&)> type_of = {};
};

// Writes `path` in place of whatever was there, once it is whole; on any error `path` is as it was. Two tensors
// or experts at a time are in memory: one is written while the next is packed. All workers of the context take part;
// the bytes depend on weights and options alone. Throws Error(kUnsupported) if the source gives packed weights of
// another format, Error(kBadFormat) if a number of a router or a norm is not finite, Error(kInvalidArgument) if an
// embedded file is named like a tensor, and what ops::pack() and AtomicFileWriter throw. A configuration without a head
// makes a file without one.
void pack_model(const std::filesystem::path& path, const OpContext& ctx, const ModelConfig& config, WeightSource source,
                const PackOptions& options);

// The same image in memory, ready to run.
Checkpoint pack_in_memory(const OpContext& ctx, const ModelConfig& config, WeightSource source,
                          const PackOptions& options);

}  // namespace mixtral
