#include "io/gguf_files.hpp"

#include <algorithm>
#include <set>

#include "core/json.hpp"
#include "io/catalog.hpp"
#include "io/gguf_config.hpp"
#include "mixtral/core/error.hpp"
#include "mixtral/core/tensor.hpp"

namespace mixtral {
namespace {

constexpr Index kMostFiles = 1 << 15;

// "model-00002-of-00003.gguf" for part 1 of "model-00001-of-00003.gguf".
std::filesystem::path part_path(const std::filesystem::path& first, Index part, Index count) {
  const auto number = [](Index n) {
    const std::string digits = str(n);
    return std::string(digits.size() < 5 ? 5 - digits.size() : 0, '0') + digits;
  };
  const auto ending = [&](Index n) { return str("-", number(n + 1), "-of-", number(count), ".gguf"); };
  const std::string name = first.filename().string(), end = ending(0);
  require(name.ends_with(end), ErrorCode::kBadFormat, first.string(), ": is the first of ", count,
          " files, so its name should end in ", end);
  return first.parent_path() / (name.substr(0, name.size() - end.size()) + ending(part));
}

Index split_number(const GgufFile& file, const char* key, Index otherwise) {
  return file.integer(str("split.", key), 0, kMostFiles).value_or(otherwise);
}

// Without ones in front, as GgufTensor::shape.
std::vector<Index> plain_shape(std::vector<Index> dims) {
  while (dims.size() > 1 && dims.front() == 1) dims.erase(dims.begin());
  return dims;
}

}  // namespace

GgufNames gguf_names(const TensorSlot& slot) {
  using enum TensorKind;
  const std::string layer = str("blk.", slot.layer, ".");
  const auto expert = [&](const char* name) {
    return GgufNames{str(layer, name, ".", slot.expert, ".weight"), str(layer, name, "_exps.weight")};
  };
  switch (slot.kind) {
    case kEmbedding: return {"token_embd.weight", {}};
    case kAttentionNorm: return {layer + "attn_norm.weight", {}};
    case kWq: return {layer + "attn_q.weight", {}};
    case kWk: return {layer + "attn_k.weight", {}};
    case kWv: return {layer + "attn_v.weight", {}};
    case kWo: return {layer + "attn_output.weight", {}};
    case kFfnNorm: return {layer + "ffn_norm.weight", {}};
    case kRouter: return {layer + "ffn_gate_inp.weight", {}};
    case kW1: return expert("ffn_gate");
    case kW2: return expert("ffn_down");
    case kW3: return expert("ffn_up");
    case kFinalNorm: return {"output_norm.weight", {}};
    case kHead: return {"output.weight", {}};
  }
  return {};
}

bool GgufMatrix::is_dense() const noexcept {
  return type == GgmlType::kF32 || type == GgmlType::kF16 || type == GgmlType::kBF16;
}

MatrixView GgufMatrix::dense() const noexcept {
  const DType dtype = type == GgmlType::kF32 ? DType::kF32 : type == GgmlType::kF16 ? DType::kF16 : DType::kBF16;
  return {dtype, rows, cols, data};
}

GgufFiles::GgufFiles(const std::filesystem::path& first) {
  files_.push_back(std::make_unique<const GgufFile>(first));
  const Index count = split_number(head(), "count", 1), own = split_number(head(), "no", 0);
  require(own == 0, ErrorCode::kBadFormat, first.string(), ": is file ", own + 1, " of ", count,
          ": open the first one");
  std::size_t n_tensors = head().tensors().size();
  for (Index part = 1; part < count; ++part) {
    files_.push_back(std::make_unique<const GgufFile>(part_path(first, part, count)));
    const GgufFile& file = *files_.back();
    const Index no = split_number(file, "no", -1), of = split_number(file, "count", -1);
    require(no == part && of == count, ErrorCode::kBadFormat, file.name(), ": split.no is ", no, " and split.count ",
            of, ", expected ", part, " and ", count);
    n_tensors += file.tensors().size();
  }
  const auto all = head().integer("split.tensors.count", 0, Index{1} << 30);
  require(!all || *all == static_cast<Index>(n_tensors), ErrorCode::kBadFormat, first.string(),
          ": split.tensors.count is ", all.value_or(0), ", the files have ", n_tensors, " tensors");
  std::set<std::string_view> seen;
  for (const auto& file : files_) {
    for (const GgufTensor& tensor : file->tensors()) {
      require(seen.insert(tensor.name).second, ErrorCode::kBadFormat, file->name(), ": tensor ",
              json::quote(tensor.name), " is in another file, too");
    }
  }
}

const GgufTensor* GgufFiles::find_tensor(std::string_view name) const noexcept {
  for (const auto& file : files_) {
    if (const GgufTensor* tensor = file->find_tensor(name)) return tensor;
  }
  return nullptr;
}

ModelConfig GgufFiles::read_config() const {
  ModelConfig config = read_gguf_config(head());
  const GgufTensor* const embedding = find_tensor("token_embd.weight");
  require(embedding != nullptr, ErrorCode::kBadFormat, head().name(), ": no tensor token_embd.weight");
  require(embedding->shape.back() == config.dim, ErrorCode::kBadFormat, head().name(), ": token_embd.weight is ",
          shape_text(embedding->shape), ", llama.embedding_length ", config.dim);
  config.vocab_size = embedding->size() / config.dim;
  const Index named = head().integer("llama.vocab_size", 1, detail::kMaxDimension).value_or(config.vocab_size);
  require(named == config.vocab_size, ErrorCode::kBadFormat, head().name(), ": llama.vocab_size is ", named,
          ", token_embd.weight has ", config.vocab_size, " rows");
  const GgufKey* const tokens = head().find_key("tokenizer.ggml.tokens");
  require(tokens == nullptr || tokens->count == config.vocab_size, ErrorCode::kBadFormat, head().name(),
          ": tokenizer.ggml.tokens has ", tokens == nullptr ? 0 : tokens->count, " elements, token_embd.weight ",
          config.vocab_size, " rows");
  config.tied_embeddings = find_tensor("output.weight") == nullptr;
  require_valid(config, head().name());
  double bytes = 0;
  for (const auto& file : files_) {
    for (const GgufTensor& tensor : file->tensors()) bytes += static_cast<double>(tensor.data.size());
  }
  const GgmlTypeInfo& smallest = info_of(GgmlType::kIQ1_S);
  require_room(config, head().name(), bytes,
               static_cast<double>(smallest.block_bytes) / static_cast<double>(smallest.block_weights));
  return config;
}

GgufMatrix GgufFiles::find(const TensorSlot& slot, const Shape<2>& shape, const ModelConfig& config) const {
  const GgufNames names = gguf_names(slot);
  const auto check = [&](const GgufTensor& tensor, std::vector<Index> want) {
    want = plain_shape(std::move(want));
    require(tensor.shape == want, ErrorCode::kBadFormat, head().name(), ": tensor ", tensor.name, " is ",
            shape_text(tensor.shape), ", expected ", shape_text(want));
  };
  if (const GgufTensor* own = find_tensor(names.own)) {
    check(*own, {shape[0], shape[1]});
    return {own->type, shape[0], shape[1], own->data.data(), own->name};
  }
  const GgufTensor* const merged = names.merged.empty() ? nullptr : find_tensor(names.merged);
  require(merged != nullptr, ErrorCode::kBadFormat, head().name(), ": no tensor ", names.own,
          names.merged.empty() ? "" : " and no ", names.merged);
  check(*merged, {config.n_experts, shape[0], shape[1]});
  GgufMatrix matrix{merged->type, shape[0], shape[1], merged->data.data(), merged->name};
  matrix.data += slot.expert * matrix.bytes();
  return matrix;
}

void GgufFiles::require_known(const ModelConfig& config) const {
  std::set<std::string, std::less<>> known;
  for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>&) {
    const GgufNames names = gguf_names(slot);
    known.insert(find_tensor(names.own) != nullptr ? names.own : names.merged);
  });
  for (const auto& file : files_) {
    for (const GgufTensor& tensor : file->tensors()) {
      // Tables of angles in old files: what every model of this architecture computes for itself.
      if (tensor.name.ends_with(".attn_rot_embd.weight")) continue;
      require(known.find(tensor.name) != known.end(), ErrorCode::kUnsupported, file->name(), ": tensor ",
              json::quote(tensor.name), " is no part of such a model");
    }
  }
}

std::vector<CheckpointTensor> GgufFiles::list(const ModelConfig& config) const {
  std::vector<CheckpointTensor> out;
  for (const auto& file : files_) {
    const std::string name = std::filesystem::path(file->name()).filename().string();
    for (const GgufTensor& tensor : file->tensors()) {
      if (!config.has_head && tensor.name == gguf_names({TensorKind::kHead}).own) continue;
      out.push_back(
          {std::string(tensor.name), name, name_of(tensor.type), tensor.shape, static_cast<Index>(tensor.data.size())});
    }
  }
  std::sort(out.begin(), out.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return out;
}

}  // namespace mixtral
