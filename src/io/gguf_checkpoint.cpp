// GGUF files as a checkpoint format.
#include <algorithm>
#include <cmath>
#include <fstream>

#include "io/finite.hpp"
#include "io/format.hpp"
#include "io/gguf_files.hpp"
#include "io/gguf_import.hpp"
#include "io/gguf_tokenizer.hpp"
#include "io/packed_format.hpp"
#include "mixtral/core/available_memory.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/scratch.hpp"
#include "mixtral/io/gguf_weights.hpp"
#include "mixtral/ops/isa.hpp"

namespace mixtral {
namespace {

// Kernels and memory for an import.
struct Workshop {
  explicit Workshop(Executor& workers) : table(make_table(best_isa())), ctx{table, workers, scratch} {}
  KernelTable table;
  Scratch scratch;
  OpContext ctx;
};

// The sum of some number of every tensor.
template <class Of>
Index sum_over(const ModelConfig& config, Of&& of) {
  Index sum = 0;
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>&) { sum += of(slot); });
  return sum;
}

std::string size_text(Index bytes) {
  const bool large = bytes >= 1'000'000'000;
  return str(std::round(static_cast<double>(bytes) / (large ? 1e7 : 1e4)) / 100, large ? " GB" : " MB");
}

// Before anything is imported.
void require_memory(Index need, const LoadOptions& options, const std::filesystem::path& path) {
  const Index have = options.memory_bytes < 0 ? available_memory() : options.memory_bytes;
  require(need <= have, ErrorCode::kOutOfMemory, path.string(), ": its weights take ", need, " bytes (",
          size_text(need), ") of memory, ", have, " (", size_text(have),
          ") are free: mixtral pack IN OUT --weights import writes a file of ", size_text(need),
          " that is used from the disk");
}

// What became of each group, for people.
void tell(const std::vector<ImportedGroup>& groups, std::vector<std::string>& notes) {
  for (const ImportedGroup& g : groups) {
    const bool exact = !decltype(KernelTable::pack_slab)::has(g.to);
    const std::string how =
        exact ? "the same weights" : str("relative error ", std::round(1e5 * g.relative_error()) / 1e5);
    notes.push_back(str(name_of(g.group), ": ", g.from, " -> ", name_of(g.to), ", ", size_text(g.file_bytes), " -> ",
                        size_text(g.bytes), ", ", how));
  }
}

void import_weights(GgufImporter& importer, const std::shared_ptr<const GgufFiles>& files, const LoadOptions& options,
                    Checkpoint& out) {
  const ModelConfig& config = out.model.config;
  Weights& weights = out.model.weights;
  const Index all = sum_over(config, [&](const TensorSlot& slot) { return importer.file_bytes(slot); });
  Index done = 0;
  const auto count = [&](const TensorSlot& slot) {
    importer.add_to(out.imported, slot);
    done += importer.file_bytes(slot);
    if (options.progress) options.progress(done, all);
  };
  const auto others = std::make_shared<ImportedWeights>(files);
  for_each_unit(config, [&](const PackedUnit& unit) {
    const auto& [kind, layer, expert] = unit.slot;
    if (!unit.is_expert()) {
      weights.at(unit.slot) = importer.import_one(unit.slot, *others);
      return count(unit.slot);
    }
    weights.layers[static_cast<std::size_t>(layer)].experts[static_cast<std::size_t>(expert)] =
        importer.import_expert(layer, expert);
    for (const TensorKind part : {TensorKind::kW1, TensorKind::kW2, TensorKind::kW3}) count(unit.part(part));
  });
  weights.storage = others;
}

// Types and shapes alone, and how far a sample of the weights would be.
void describe_weights(const GgufImporter& importer, Checkpoint& out) {
  for_each_tensor(out.model.config, [&](const TensorSlot& slot, const Shape<2>&) {
    out.model.weights.at(slot) = importer.describe(slot);
    importer.add_to(out.imported, slot);
  });
}

Checkpoint load_gguf(const std::filesystem::path& path, const LoadOptions& options) {
  const auto files = std::make_shared<const GgufFiles>(path);
  Checkpoint out;
  out.model.config = files->read_config();
  files->require_known(out.model.config);
  out.model.config.has_head = options.head == Head::kRequired;
  out.tensors = files->list(out.model.config);
  out.files = gguf_tokenizer_files(files->head());
  out.model.weights = Weights(out.model.config);
  SerialExecutor caller;
  Workshop workshop(options.executor == nullptr ? caller : *options.executor);
  GgufImporter importer(files, out.model.config, workshop.ctx, options.import, options.resident);
  const Index memory = sum_over(out.model.config, [&](const TensorSlot& slot) { return importer.memory_bytes(slot); });
  Index room = 0;  // of the matrix, or pair, that takes most while it is imported
  for_each_tensor(out.model.config,
                  [&](const TensorSlot& slot, const Shape<2>&) { room = std::max(room, importer.room_bytes(slot)); });
  if (options.headers_only) {
    describe_weights(importer, out);
  } else {
    require_memory(memory + room, options, path);
    import_weights(importer, files, options, out);
    require_finite_routing(out.model.weights, out.model.config, path.string());
  }
  out.mapped = memory == 0;
  tell(out.imported, out.notes);
  return out;
}

}  // namespace

bool is_gguf(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  if (path.extension() == ".gguf") return true;
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof magic);
  return std::string_view(magic, sizeof magic) == "GGUF";
}

struct GgufWeights::State {
  State(const std::filesystem::path& path, Executor& executor, QuantizedImport import)
      : files(std::make_shared<const GgufFiles>(path)),
        config(files->read_config()),
        workshop(executor),
        importer(files, config, workshop.ctx, import) {}

  std::shared_ptr<const GgufFiles> files;
  ModelConfig config;
  Workshop workshop;
  GgufImporter importer;
  // What was asked for last: an expert, or some of a layer's other tensors.
  Index layer = -2, expert_id = -2;
  std::unique_ptr<ImportedWeights> others;
  moe::ExpertWeights expert;
};

GgufWeights::GgufWeights(const std::filesystem::path& path, Executor& executor, QuantizedImport import)
    : state_(new State(path, executor, import)) {
  state_->files->require_known(state_->config);
}

GgufWeights::~GgufWeights() = default;

const ModelConfig& GgufWeights::config() const noexcept { return state_->config; }
std::vector<EmbeddedFile> GgufWeights::files() const { return gguf_tokenizer_files(state_->files->head()); }
DType GgufWeights::type_of(const TensorSlot& slot) const { return state_->importer.type_of(slot); }

MatrixView GgufWeights::operator()(const TensorSlot& slot, const Shape<2>&) {
  State& s = *state_;
  if (slot.layer != s.layer || slot.expert != s.expert_id) {
    s.layer = s.expert_id = -2;  // until it is there
    s.expert = {};
    s.others = std::make_unique<ImportedWeights>(s.files);
    if (slot.expert >= 0) s.expert = s.importer.import_expert(slot.layer, slot.expert);
    s.layer = slot.layer, s.expert_id = slot.expert;
  }
  if (slot.expert < 0) return s.importer.import_one(slot, *s.others);
  return slot.kind == TensorKind::kW1 ? s.expert.w1 : slot.kind == TensorKind::kW2 ? s.expert.w2 : s.expert.w3;
}

const CheckpointFormat kGgufFormat{
    .recognises = is_gguf,
    .load = load_gguf,
    .files = [](const std::filesystem::path& path) { return gguf_tokenizer_files(GgufFile(path)); },
    .vocab_size = [](const std::filesystem::path& path) { return GgufFiles(path).read_config().vocab_size; }};

}  // namespace mixtral
