// GGUF files as a checkpoint format.
#include <fstream>

#include "io/finite.hpp"
#include "io/format.hpp"
#include "io/gguf_files.hpp"
#include "io/gguf_import.hpp"
#include "io/gguf_tokenizer.hpp"
#include "mixtral/core/arena.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/scratch.hpp"
#include "mixtral/io/gguf_weights.hpp"
#include "mixtral/ops/isa.hpp"

namespace mixtral {
namespace {

Checkpoint load_gguf(const std::filesystem::path& path, const LoadOptions& options) {
  const auto files = std::make_shared<const GgufFiles>(path);
  Checkpoint out;
  out.model.config = files->read_config();
  files->require_known(out.model.config);
  out.model.config.has_head = options.head == Head::kRequired;
  out.tensors = files->list(out.model.config);
  out.files = gguf_tokenizer_files(files->head());
  SerialExecutor caller;
  Scratch scratch;
  const KernelTable table = make_table(best_isa());
  Executor& executor = options.executor == nullptr ? caller : *options.executor;
  import_weights(files, {table, executor, scratch}, options.import, out);
  require_finite_routing(out.model.weights, out.model.config, path.string());
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
  GgufFiles files;
  ModelConfig config;
  Executor& executor;
  TensorSlot at{TensorKind::kEmbedding};
  std::vector<std::unique_ptr<const Arena>> floats;  // of the tensor or expert `at`
};

GgufWeights::GgufWeights(const std::filesystem::path& path, Executor& executor)
    : state_(new State{GgufFiles(path), {}, executor, {TensorKind::kEmbedding}, {}}) {
  state_->config = state_->files.read_config();
  state_->files.require_known(state_->config);
}

GgufWeights::~GgufWeights() = default;

const ModelConfig& GgufWeights::config() const noexcept { return state_->config; }
std::vector<EmbeddedFile> GgufWeights::files() const { return gguf_tokenizer_files(state_->files.head()); }

MatrixView GgufWeights::operator()(const TensorSlot& slot, const Shape<2>& shape) {
  State& s = *state_;
  const bool same = slot.expert >= 0 && slot.layer == s.at.layer && slot.expert == s.at.expert;
  if (!same) s.floats.clear();
  s.at = slot;
  const GgufMatrix m = s.files.find(slot, shape, s.config);
  if (m.is_dense()) return m.dense();
  s.floats.push_back(std::make_unique<const Arena>(m.float_bytes()));
  return dequantized(m, s.executor, s.floats.back()->data());
}

const CheckpointFormat kGgufFormat{
    .recognises = is_gguf,
    .load = load_gguf,
    .files = [](const std::filesystem::path& path) { return gguf_tokenizer_files(GgufFile(path)); },
    .vocab_size = [](const std::filesystem::path& path) { return GgufFiles(path).read_config().vocab_size; }};

}  // namespace mixtral
