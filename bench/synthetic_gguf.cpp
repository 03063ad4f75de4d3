// Random weights of Mixtral 8x7B's shape as a GGUF file, in the mixes that are met: for figures of opening and running
// such files. Blocks are random bytes with small scales, which no quantiser has to make.
//
//   synthetic_gguf OUT.gguf q4_0|q4_k_m|q8_0 merged|single LAYERS
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "io/gguf_config.hpp"
#include "io/gguf_files.hpp"
#include "io/gguf_keys.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/io/synthetic.hpp"
#include "mixtral/model/weights.hpp"

using namespace mixtral;

namespace {

// The type of a matrix. q4_k_m: as it is made today, attention's values and half of the down projections wider.
GgmlType type_of(const TensorSlot& slot, const std::string& mix) {
  const TensorGroup group = group_of(slot.kind);
  if (group == TensorGroup::kNorms || group == TensorGroup::kRouter) return GgmlType::kF32;
  if (mix == "q8_0") return GgmlType::kQ8_0;
  if (mix == "q4_0") return slot.kind == TensorKind::kHead ? GgmlType::kQ8_0 : GgmlType::kQ4_0;
  switch (slot.kind) {
    case TensorKind::kHead: return GgmlType::kQ6_K;
    case TensorKind::kWk:
    case TensorKind::kWv: return GgmlType::kQ8_0;
    case TensorKind::kWo: return GgmlType::kQ5_K;
    case TensorKind::kW2: return slot.layer % 2 == 0 ? GgmlType::kQ6_K : GgmlType::kQ4_K;
    default: return GgmlType::kQ4_K;
  }
}

// Where a block's float16 numbers stand.
std::vector<Index> halves_of(GgmlType type) {
  switch (type) {
    case GgmlType::kQ4_K:
    case GgmlType::kQ5_K: return {0, 2};
    case GgmlType::kQ6_K: return {208};
    default: return {0};
  }
}

// One piece of random blocks, written again and again.
class Blocks {
 public:
  explicit Blocks(GgmlType type) : block_bytes_(info_of(type).block_bytes) {
    std::mt19937_64 random(1);
    bytes_.resize(static_cast<std::size_t>(block_bytes_ * 32768));
    for (std::byte& byte : bytes_) byte = static_cast<std::byte>(random());
    const float scale = type == GgmlType::kQ8_0 ? 2e-4f : type == GgmlType::kQ4_0 ? 3e-3f : 5e-5f;
    for (Index i = 0; type != GgmlType::kF32 && i < static_cast<Index>(bytes_.size()); i += block_bytes_) {
      for (const Index at : halves_of(type)) {
        const f16 half = to_f16(scale);
        std::memcpy(bytes_.data() + i + at, &half, sizeof half);
      }
    }
    for (Index i = 0; type == GgmlType::kF32 && i < static_cast<Index>(bytes_.size()); i += 4) {
      const float x = 1.0f + 1e-3f * static_cast<float>(random() % 1000);
      std::memcpy(bytes_.data() + i, &x, sizeof x);
    }
  }
  void write(AtomicFileWriter& file, Index n) const {
    for (Index done = 0; done < n; done += static_cast<Index>(bytes_.size())) {
      file.write(std::span(bytes_).first(std::min(bytes_.size(), static_cast<std::size_t>(n - done))));
    }
  }

 private:
  Index block_bytes_;
  std::vector<std::byte> bytes_;
};

struct FileTensor {
  std::string name;
  GgmlType type;
  std::vector<Index> shape;  // the last one is contiguous
  Index bytes = 0;
};

std::vector<FileTensor> list(const ModelConfig& config, const std::string& mix, bool merged) {
  std::vector<FileTensor> out;
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    const GgufNames names = gguf_names(slot);
    const bool expert = group_of(slot.kind) == TensorGroup::kExperts;
    if (expert && merged && slot.expert > 0) return;
    FileTensor t{expert && merged ? names.merged : names.own, type_of(slot, mix), {shape[0], shape[1]}};
    if (group_of(slot.kind) == TensorGroup::kNorms) t.shape = {shape[1]};
    if (expert && merged) t.shape.insert(t.shape.begin(), config.n_experts);
    Index weights = 1;
    for (const Index n : t.shape) weights *= n;
    t.bytes = weights / info_of(t.type).block_weights * info_of(t.type).block_bytes;
    out.push_back(std::move(t));
  });
  return out;
}

// Other programs open no model without: the bytes, then words that no text has.
void add_tokenizer(Index n, GgufKeys& keys) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<std::int32_t> types = {2, 3, 3};
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(byte));
    tokens.emplace_back(name);
    types.push_back(6);
  }
  while (static_cast<Index>(tokens.size()) < n) {
    tokens.push_back("word" + std::to_string(tokens.size()));
    types.push_back(1);
  }
  std::vector<float> scores;
  for (std::size_t i = 0; i < tokens.size(); ++i) scores.push_back(-static_cast<float>(i));
  keys.text("tokenizer.ggml.model", "llama");
  keys.texts("tokenizer.ggml.tokens", tokens);
  keys.floats("tokenizer.ggml.scores", scores);
  keys.integers("tokenizer.ggml.token_type", types);
  keys.integer("tokenizer.ggml.bos_token_id", 1);
  keys.integer("tokenizer.ggml.eos_token_id", 2);
}

Index padded(Index bytes) { return (bytes + 31) / 32 * 32; }

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: synthetic_gguf OUT.gguf q4_0|q4_k_m|q8_0 merged|single LAYERS\n");
    return 2;
  }
  const std::string mix = argv[2];
  const ModelConfig config = synthetic_config("mixtral-8x7b", std::atoi(argv[4]));
  const std::vector<FileTensor> tensors = list(config, mix, std::string(argv[3]) == "merged");
  GgufKeys keys;
  keys.text("general.architecture", "llama");
  keys.text("general.name", "random");
  add_gguf_config(config, keys);
  add_tokenizer(config.vocab_size, keys);
  std::string head = keys.header(static_cast<Index>(tensors.size()));
  Index offset = 0;
  for (const FileTensor& t : tensors) {
    append_gguf(head, std::string_view(t.name));
    append_gguf(head, static_cast<std::uint32_t>(t.shape.size()));
    for (auto n = t.shape.rbegin(); n != t.shape.rend(); ++n) append_gguf(head, static_cast<std::uint64_t>(*n));
    append_gguf(head, static_cast<std::uint32_t>(t.type));
    append_gguf(head, static_cast<std::uint64_t>(offset));
    offset += padded(t.bytes);
  }
  head.resize(static_cast<std::size_t>(padded(static_cast<Index>(head.size()))), '\0');
  AtomicFileWriter file(argv[1]);
  file.write(std::as_bytes(std::span(head)));
  for (const FileTensor& t : tensors) {
    Blocks(t.type).write(file, t.bytes);
    const std::byte zeros[32] = {};
    file.write(std::span(zeros).first(static_cast<std::size_t>(padded(t.bytes) - t.bytes)));
  }
  file.commit();
  return 0;
}
