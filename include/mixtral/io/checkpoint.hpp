// A model from the files of a checkpoint, whatever their format.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/dtype.hpp"
#include "mixtral/core/executor.hpp"
#include "mixtral/core/types.hpp"
#include "mixtral/io/embedded_files.hpp"
#include "mixtral/model/config.hpp"
#include "mixtral/model/weights.hpp"

namespace mixtral {

// One tensor as it lies in its file.
struct CheckpointTensor {
  std::string name;       // the file's own name for it
  std::string file;       // without the directory
  std::string_view type;  // "BF16", "P4", "Q4_K": of a packed file that of the weights; lives for ever
  std::vector<Index> shape;
  Index bytes = 0;
};

// Weights of one kind that were in one type of GGUF's and became one of the kernels'.
struct ImportedGroup {
  TensorGroup group;
  std::string_view from;  // the file's type, "Q6_K"; lives for ever
  DType to;
  Index weights = 0, file_bytes = 0, bytes = 0;
  double square = 0, squared_error = 0;  // sums over some rows of each matrix; 0: the same weights

  // Of those rows, root mean square.
  double relative_error() const noexcept;
};

// A model and the files that it was in; its weights are views on the mapped files, and keep them open.
struct Checkpoint {
  Model model;
  std::vector<CheckpointTensor> tensors;     // sorted by name
  std::vector<EmbeddedFile> files;           // the tokenizer's, of a packed or GGUF file
  std::vector<std::string> notes;            // what the files' user should know, as a setting that is passed over
  bool mapped = false;                       // the weights are views on mapped files, not on memory of the process
  std::vector<ImportedGroup> imported = {};  // of a GGUF file: what did not stay as it was
};

// What becomes of weights in types that are not dense, as most GGUF files have them. Pinned.
enum class QuantizedImport : std::int32_t {
  kPacked = 0,  // Q8_0, Q4_0, Q4_1 and Q4_K exactly, in panels (core/packed_layout.hpp); the others P4 or P8, whichever
                // is nearer in bytes, with their error on top of the file's
  kFloat32 = 1,  // exactly; four bytes a weight
};

// Whether the head is opened, too. Pinned.
enum class Head : std::int32_t {
  kRequired = 0,
  // A checkpoint may lack it, and one that has it is opened as if it did not: for embeddings. Logits are refused, also
  // of a model whose head is its embedding.
  kNone = 1,
};

struct LoadOptions {
  // Copies the weights into memory of the process, huge pages where the system has them, and closes the files: reading
  // from it is faster, opening slower. Pages of the files are given back as they are copied: weights are there once.
  bool resident = false;
  Executor* executor = nullptr;  // whose workers copy and import; nullptr: the caller
  QuantizedImport import = QuantizedImport::kPacked;
  // Only what headers say: weights that would be imported are views without data. Other formats map their files anyway.
  bool headers_only = false;
  Index memory_bytes = -1;  // that imported weights may take; -1: what the system has free
  // Bytes of a file that were imported, of all; from the calling thread. What it throws ends the loading.
  std::function<void(Index done, Index all)> progress = {};
  Head head = Head::kRequired;
};

// Loads by the format that is there: a file is a GGUF one by its name or its first bytes (io/gguf.hpp; of a split one
// the first is named), otherwise a packed one (io/packed.hpp); in a directory, config.json makes a directory Hugging
// Face's (io/huggingface.hpp), params.json a consolidated one (io/consolidated.hpp). A directory with both is taken as
// Hugging Face's, unless it lacks that format's weights: then params.json describes those that it has.
//
// Throws what the loader throws, Error(kOutOfMemory) with the numbers if a GGUF file's weights would take more memory
// than there is, and Error(kNotFound) if there is nothing at `path`, or neither of both files in it:
// then the message names what is there instead.
Checkpoint load_checkpoint(const std::filesystem::path& path, const LoadOptions& options = {});

// The vocab_size of the configuration in `path`, whose weights need not be there; 0 if there is none that can be read.
Index read_vocab_size(const std::filesystem::path& path);

}  // namespace mixtral
