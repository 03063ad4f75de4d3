// Weights from the types of GGUF into those that the kernels read.
#pragma once

#include <memory>
#include <vector>

#include "io/gguf_files.hpp"
#include "mixtral/core/arena.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/ops/context.hpp"

namespace mixtral {

// Matrices and what they look at.
class ImportedWeights {
 public:
  explicit ImportedWeights(std::shared_ptr<const GgufFiles> files) : files_(std::move(files)) {}
  std::byte* take(Index bytes) { return arenas_.emplace_back(std::make_unique<const Arena>(bytes))->data(); }

 private:
  std::shared_ptr<const GgufFiles> files_;
  std::vector<std::unique_ptr<const Arena>> arenas_;
};

// Decides what each matrix becomes, and makes it, one at a time, by all workers of the context. What was read of the
// file is given back to the system. Members throw what GgufFiles::find() throws, and Error(kBadFormat) that names the
// tensor if a scale or a weight is not finite.
class GgufImporter {
 public:
  // `ctx` and `config` must outlive this. resident: nothing is left in the file.
  GgufImporter(std::shared_ptr<const GgufFiles> files, const ModelConfig& config, const OpContext& ctx,
               QuantizedImport import, bool resident = false)
      : files_(std::move(files)), config_(config), ctx_(ctx), import_(import), resident_(resident) {}

  // The type that a matrix becomes; of an expert's w1 and w3 the same.
  DType type_of(const TensorSlot& slot) const;
  // Bytes of memory that a matrix takes, without its padding; 0: it is used where it lies.
  Index memory_bytes(const TensorSlot& slot) const;
  // Bytes of the file that a matrix has.
  Index file_bytes(const TensorSlot& slot) const { return find(slot).bytes(); }
  // Float32 that is there beside it while it becomes P4 or P8; of w1 and w3 both.
  Index room_bytes(const TensorSlot& slot) const;
  // A view of the type and shape that it becomes, with nothing to look at if it takes memory.
  MatrixView describe(const TensorSlot& slot) const;

  // Not one of an expert's.
  MatrixView import_one(const TensorSlot& slot, ImportedWeights& owner);
  // w1, w2, w3 and their owner.
  moe::ExpertWeights import_expert(Index layer, Index expert);

  // Counts a matrix with its group, if its type changes, and looks how far a part of it is from the file.
  void add_to(std::vector<ImportedGroup>& groups, const TensorSlot& slot) const;

 private:
  GgufMatrix find(const TensorSlot& slot) const;
  // f(), whose errors get the names of file and matrix.
  template <class F>
  auto named(const TensorSlot& slot, F&& f) const;
  MatrixView make(const TensorSlot& slot, ImportedWeights& owner);
  MatrixView floats_of(const GgufMatrix& m, ImportedWeights& owner);

  std::shared_ptr<const GgufFiles> files_;
  const ModelConfig& config_;
  const OpContext& ctx_;
  QuantizedImport import_;
  bool resident_;
};

}  // namespace mixtral
