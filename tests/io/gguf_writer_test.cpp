#include "mixtral/io/gguf_writer.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "mixtral/core/file.hpp"
#include "mixtral/io/gguf_weights.hpp"
#include "mixtral/ops/isa.hpp"
#include "support/checkpoint_files.hpp"
#include "support/consolidated_files.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/ggml_decoder.hpp"
#include "support/ggml_encoder.hpp"
#include "support/gguf_bytes.hpp"
#include "support/gguf_parse.hpp"
#include "support/golden.hpp"
#include "support/models.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using test::error_of;
using test::gguf_key;
using test::names;
using test::put;

namespace {

const std::filesystem::path kModels = test::golden_dir() / "gguf/models";
constexpr GgmlType kWritten[] = {GgmlType::kF16, GgmlType::kQ8_0, GgmlType::kQ4_0};

GgufOptions all_in(GgmlType type) {
  return {.formats = GgufFormats::all(type), .name = "m", .tokenizer = {}, .progress = {}};
}

void write(const std::filesystem::path& path, const ModelConfig& config, WeightSource source,
           const GgufOptions& options, Executor* workers = nullptr) {
  const KernelTable table = make_table(best_isa());
  SerialExecutor serial;
  Scratch scratch;
  write_gguf(path, {table, workers == nullptr ? serial : *workers, scratch}, config, source, options);
}
void write(const std::filesystem::path& path, const Model& model, const GgufOptions& options,
           Executor* workers = nullptr) {
  write(
      path, model.config, [&](const TensorSlot& s, const Shape<2>&) { return model.weights.at(s); }, options, workers);
}
void rewrite(const std::filesystem::path& from, const std::filesystem::path& to, const GgufOptions& options) {
  SerialExecutor serial;
  GgufWeights source(from, serial);
  write(to, source.config(), source, options);
}

// Rows of whole blocks, heads of their own width.
ModelConfig block_config() {
  ModelConfig c = test::small_config();
  c.dim = 64;
  c.hidden_dim = 96;
  c.n_heads = 4;
  c.n_kv_heads = 2;
  c.head_dim = 24;
  return c;
}

// All tensors of both files have the same names, types, sizes and bytes, as a second reader sees them.
void check_same_tensors(const std::filesystem::path& got_path, const std::filesystem::path& want_path) {
  const test::GgufContents got = test::parse_gguf(got_path), want = test::parse_gguf(want_path);
  CHECK(got.tensors.size() == want.tensors.size());
  for (const test::GgufTensor& w : want.tensors) {
    CAPTURE(w.name);
    const auto g =
        std::find_if(got.tensors.begin(), got.tensors.end(), [&](const auto& t) { return t.name == w.name; });
    REQUIRE(g != got.tensors.end());
    CHECK(g->type == w.type);
    CHECK(g->dims == w.dims);
    const GgmlTypeInfo& info = *find_ggml_type(w.type);
    const auto bytes = static_cast<std::size_t>(w.n_weights() / info.block_weights * info.block_bytes);
    CHECK(std::memcmp(got.data(*g), want.data(w), bytes) == 0);
  }
}

std::string contents(const std::filesystem::path& path) { return read_file(path, Index{1} << 28); }

// The weights of a slot as a GGUF file has them: rows of q and k interleaved.
std::vector<float> stored_weights(const Model& model, const TensorSlot& slot) {
  const MatrixView& w = model.weights.at(slot);
  const ModelConfig& c = model.config;
  const bool turned =
      (slot.kind == TensorKind::kWq || slot.kind == TensorKind::kWk) && c.rope_pairing == RopePairing::kHalfSplit;
  std::vector<float> out(static_cast<std::size_t>(w.rows * w.cols));
  for (Index r = 0; r < w.rows; ++r) {
    const Index head = r / c.head_dim, i = r % c.head_dim, half = c.head_dim / 2;
    const Index to = !turned ? r : head * c.head_dim + (i < half ? 2 * i : 2 * (i - half) + 1);
    for (Index k = 0; k < w.cols; ++k) out[static_cast<std::size_t>(to * w.cols + k)] = test::value(w, r, k);
  }
  return out;
}

GgmlType expected_type(const TensorSlot& slot, const ModelConfig& c, GgmlType type) {
  const TensorGroup group = group_of(slot.kind);
  if (group == TensorGroup::kNorms || group == TensorGroup::kRouter) return GgmlType::kF32;
  const bool is_head = group == TensorGroup::kHead || (c.tied_embeddings && group == TensorGroup::kEmbedding);
  return is_head && type == GgmlType::kQ4_0 ? GgmlType::kQ8_0 : type;
}

// Every weight of the file is what a slow encoder and a slow decoder make of the model's.
void check_weights(const std::filesystem::path& path, const Model& model, GgmlType type) {
  const test::GgmlDecoder decoder(test::golden_dir() / "gguf_iq/iq_codebooks.safetensors");
  SerialExecutor serial;
  GgufWeights file(path, serial);
  for_each_tensor(model.config, [&](const TensorSlot& slot, const Shape<2>& shape) {
    CAPTURE(slot_name(slot));
    const std::vector<float> weights = stored_weights(model, slot);
    const GgmlType own = expected_type(slot, model.config, type);
    const auto blocks = test::encoded(own, weights);
    const GgmlTypeInfo& info = info_of(own);
    const MatrixView got = file(slot, shape);
    bool same = true;
    for (std::size_t i = 0; i < weights.size(); ++i) {
      const auto n = static_cast<std::size_t>(info.block_weights);
      const auto* block =
          reinterpret_cast<const std::byte*>(blocks.data()) + i / n * static_cast<std::size_t>(info.block_bytes);
      const float want = own == GgmlType::kF32 ? weights[i] : decoder.weight(own, block, static_cast<unsigned>(i % n));
      const auto at = static_cast<Index>(i);
      same = same && test::value(got, at / shape[1], at % shape[1]) == want;
    }
    CHECK(same);
  });
}

}  // namespace

TEST_CASE("a Hugging Face directory becomes the tensors that another program's converter made of it") {
  const test::TempDir dir;
  write(dir / "m.gguf", load_checkpoint(kModels / "S_hf").model, all_in(GgmlType::kF16));
  check_same_tensors(dir / "m.gguf", kModels / "S_f16.gguf");
}

TEST_CASE("a GGUF file in one of the types that are written becomes the same tensors again") {
  const test::TempDir dir;
  for (const auto& [name, type] : {std::pair{"S_f16.gguf", GgmlType::kF16},
                                   {"G_q8_0.gguf", GgmlType::kQ8_0},
                                   {"G_q4_0.gguf", GgmlType::kQ4_0},
                                   {"V_q8_0.gguf", GgmlType::kQ8_0},
                                   {"VT_q8_0.gguf", GgmlType::kQ8_0}}) {
    CAPTURE(name);
    rewrite(kModels / name, dir / "m.gguf", all_in(type));
    check_same_tensors(dir / "m.gguf", kModels / name);
  }
}

TEST_CASE("experts one by one, other alignments and split files become the merged tensors of one file") {
  const test::TempDir dir;
  for (const char* name : {"V_q8_0_old.gguf", "V_q8_0_align64.gguf", "V_q8_0_split-00001-of-00002.gguf"}) {
    CAPTURE(name);
    rewrite(kModels / name, dir / "m.gguf", all_in(GgmlType::kQ8_0));
    check_same_tensors(dir / "m.gguf", kModels / "V_q8_0.gguf");
  }
}

TEST_CASE("weights of half-split and of interleaved RoPE become the same file") {
  const test::TempDir dir;
  test::write_dir(dir.path(), test::consolidated(test::read_dir(kModels / "S_hf")));
  const Checkpoint interleaved = load_checkpoint(dir.path());
  CHECK(interleaved.model.config.rope_pairing == RopePairing::kInterleaved);
  write(dir / "m.gguf", interleaved.model, all_in(GgmlType::kF16));
  check_same_tensors(dir / "m.gguf", kModels / "S_f16.gguf");
}

TEST_CASE("every weight that is read back is what a slow encoder makes of the model's") {
  const test::TempDir dir;
  for (const bool tied : {false, true}) {
    for (const RopePairing pairing : {RopePairing::kHalfSplit, RopePairing::kInterleaved}) {
      ModelConfig config = block_config();
      config.tied_embeddings = tied;
      config.rope_pairing = pairing;
      const test::RandomModel random(config);
      for (const GgmlType type : kWritten) {
        CAPTURE(name_of(type));
        write(dir / "m.gguf", random.model, all_in(type));
        check_weights(dir / "m.gguf", random.model, type);
      }
    }
  }
}

TEST_CASE("one expert, multi-query attention, a window and other odd dimensions come back") {
  const test::TempDir dir;
  ModelConfig config = block_config();
  config.n_experts = config.n_experts_per_tok = 1;
  config.n_heads = 3;
  config.n_kv_heads = 1;
  config.head_dim = 32;
  config.n_layers = 1;
  config.vocab_size = 33;
  config.sliding_window = 17;
  config.norm_eps = 3e-6f;
  config.rope_theta = 12345.0f;
  const test::RandomModel random(config);
  write(dir / "m.gguf", random.model, all_in(GgmlType::kQ4_0));
  check_weights(dir / "m.gguf", random.model, GgmlType::kQ4_0);
  const ModelConfig got = load_checkpoint(dir / "m.gguf").model.config;
  CHECK(got.dim == config.dim);
  CHECK(got.hidden_dim == config.hidden_dim);
  CHECK(got.n_layers == config.n_layers);
  CHECK(got.n_heads == config.n_heads);
  CHECK(got.n_kv_heads == config.n_kv_heads);
  CHECK(got.head_dim == config.head_dim);
  CHECK(got.n_experts == config.n_experts);
  CHECK(got.n_experts_per_tok == config.n_experts_per_tok);
  CHECK(got.vocab_size == config.vocab_size);
  CHECK(got.max_positions == config.max_positions);
  CHECK(got.sliding_window == config.sliding_window);
  CHECK(got.norm_eps == config.norm_eps);
  CHECK(got.rope_theta == config.rope_theta);
  CHECK(got.rope_pairing == RopePairing::kInterleaved);
  CHECK_FALSE(got.tied_embeddings);
}

TEST_CASE("each kind of matrix has the type that was asked for, the file that of its experts") {
  const test::TempDir dir;
  const test::RandomModel random(block_config());
  GgufOptions options = all_in(GgmlType::kQ4_0);
  options.formats = {GgmlType::kQ4_0, GgmlType::kQ8_0, GgmlType::kF16, GgmlType::kF16};
  write(dir / "m.gguf", random.model, options);
  const GgufFile file(dir / "m.gguf");
  CHECK(file.find_tensor("blk.1.ffn_down_exps.weight")->type == GgmlType::kQ4_0);
  CHECK(file.find_tensor("blk.1.attn_output.weight")->type == GgmlType::kQ8_0);
  CHECK(file.find_tensor("token_embd.weight")->type == GgmlType::kF16);
  CHECK(file.find_tensor("output.weight")->type == GgmlType::kF16);
  CHECK(file.find_tensor("blk.0.ffn_gate_inp.weight")->type == GgmlType::kF32);
  CHECK(file.integer("general.file_type", 0, 100) == 2);
  for (const auto& [type, number] : {std::pair{GgmlType::kF16, 1}, {GgmlType::kQ8_0, 7}}) {
    write(dir / "m.gguf", random.model, all_in(type));
    CHECK(GgufFile(dir / "m.gguf").integer("general.file_type", 0, 100) == number);
  }
}

TEST_CASE("the bytes do not depend on the number of workers") {
  const test::TempDir dir;
  const test::RandomModel random(block_config());
  write(dir / "m.gguf", random.model, all_in(GgmlType::kQ4_0));
  const std::string want = contents(dir / "m.gguf");
  test::for_each_executor([&](Executor& executor) {
    write(dir / "n.gguf", random.model, all_in(GgmlType::kQ4_0), &executor);
    CHECK(contents(dir / "n.gguf") == want);
  });
}

namespace {

// One layer, one head of four, two experts of 32 x 32, two tokens; nearly all weights are zero.
struct HandMade {
  HandMade() {
    config.dim = config.hidden_dim = 32;
    config.n_layers = config.n_heads = config.n_kv_heads = config.n_experts_per_tok = 1;
    config.head_dim = 4;
    config.n_experts = config.vocab_size = 2;
    config.max_positions = 64;
    config.sliding_window = 0;
    config.norm_eps = 0.5f;
    config.rope_theta = 10000.0f;
    config.bos_id = 0;
    config.eos_ids = {1};
  }
  MatrixView operator()(const TensorSlot& slot, const Shape<2>& shape) {
    weights.assign(static_cast<std::size_t>(shape.count()), 0.0f);
    const auto row = [&](Index r) { return weights.begin() + r * shape[1]; };
    switch (slot.kind) {
      case TensorKind::kAttentionNorm: std::fill_n(row(0), 32, 1.0f); break;
      case TensorKind::kWq:  // rows of 1, 2, 3 and 4
        for (Index r = 0; r < 4; ++r) std::fill_n(row(r), 32, static_cast<float>(r + 1));
        break;
      case TensorKind::kW1:  // expert 0: -8 first and 7 last in all rows; expert 1: 8 and 1
        for (Index r = 0; r < 32; ++r) {
          row(r)[0] = slot.expert == 0 ? -8.0f : 8.0f;
          row(r)[31] = slot.expert == 0 ? 7.0f : 1.0f;
        }
        break;
      case TensorKind::kHead: row(0)[0] = 127, row(0)[1] = -1, row(0)[31] = 2; break;
      default: break;
    }
    return {DType::kF32, shape[0], shape[1], reinterpret_cast<const std::byte*>(weights.data())};
  }
  ModelConfig config;
  std::vector<float> weights;
};

std::string tensor_entry(const std::string& name, const std::vector<std::uint64_t>& dims, std::uint32_t type,
                         std::uint64_t offset) {
  std::string out;
  put(out, name);
  put(out, static_cast<std::uint32_t>(dims.size()));
  for (const std::uint64_t dim : dims) put(out, dim);
  put(out, type);
  put(out, offset);
  return out;
}

std::string repeated(const std::string& part, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += part;
  return out;
}

// Two keys.
std::string hand_made_tokenizer() {
  std::string out = gguf_key("tokenizer.ggml.model", GgufType::kString, std::string("llama"));
  put(out, std::string("tokenizer.ggml.tokens"));
  put(out, std::uint32_t{9});  // an array
  put(out, std::uint32_t{8});  // of strings
  put(out, std::uint64_t{2});
  put(out, std::string("<s>"));
  put(out, std::string("</s>"));
  return out;
}

// What begins the file, as the format's description has it.
std::string hand_made_header() {
  const auto u32 = [](const std::string& name, std::uint32_t value) { return gguf_key(name, GgufType::kU32, value); };
  std::string out = test::gguf_header(13, 21);
  out += gguf_key("general.architecture", GgufType::kString, std::string("llama"));
  out += gguf_key("general.name", GgufType::kString, std::string("hand-made"));
  out += u32("general.alignment", 32);
  out += u32("general.file_type", 2);
  out += u32("general.quantization_version", 2);
  out += u32("llama.vocab_size", 2);
  out += u32("llama.context_length", 64);
  out += u32("llama.embedding_length", 32);
  out += u32("llama.block_count", 1);
  out += u32("llama.feed_forward_length", 32);
  out += u32("llama.attention.head_count", 1);
  out += u32("llama.attention.head_count_kv", 1);
  out += u32("llama.attention.key_length", 4);
  out += u32("llama.attention.value_length", 4);
  out += gguf_key("llama.attention.layer_norm_rms_epsilon", GgufType::kF32, 0.5f);
  out += u32("llama.rope.dimension_count", 4);
  out += gguf_key("llama.rope.freq_base", GgufType::kF32, 10000.0f);
  out += u32("llama.expert_count", 2);
  out += u32("llama.expert_used_count", 1);
  out += hand_made_tokenizer();

  constexpr std::uint32_t kF32 = 0, kF16 = 1, kQ4_0 = 2, kQ8_0 = 8;
  out += tensor_entry("token_embd.weight", {32, 2}, kQ4_0, 0);                  // 36 bytes
  out += tensor_entry("blk.0.attn_norm.weight", {32}, kF32, 64);                // 128
  out += tensor_entry("blk.0.attn_q.weight", {32, 4}, kF16, 192);               // 256
  out += tensor_entry("blk.0.attn_k.weight", {32, 4}, kF16, 448);               // 256
  out += tensor_entry("blk.0.attn_v.weight", {32, 4}, kF16, 704);               // 256
  out += tensor_entry("blk.0.attn_output.weight", {4, 32}, kF16, 960);          // 256
  out += tensor_entry("blk.0.ffn_norm.weight", {32}, kF32, 1216);               // 128
  out += tensor_entry("blk.0.ffn_gate_inp.weight", {32, 2}, kF32, 1344);        // 256
  out += tensor_entry("blk.0.ffn_gate_exps.weight", {32, 32, 2}, kQ4_0, 1600);  // 1152
  out += tensor_entry("blk.0.ffn_down_exps.weight", {32, 32, 2}, kQ4_0, 2752);
  out += tensor_entry("blk.0.ffn_up_exps.weight", {32, 32, 2}, kQ4_0, 3904);
  out += tensor_entry("output_norm.weight", {32}, kF32, 5056);  // 128
  out += tensor_entry("output.weight", {32, 2}, kQ8_0, 5184);   // 68, and zeros up to 96
  out.resize((out.size() + 31) / 32 * 32);
  return out;
}

}  // namespace

TEST_CASE("a tiny file, byte by byte as the format describes it") {
  const test::TempDir dir;
  HandMade model;
  GgufOptions options = all_in(GgmlType::kQ4_0);
  options.formats.attention = GgmlType::kF16;  // rows of 4 in wo are no whole blocks
  options.name = "hand-made";
  options.tokenizer = test::gguf_header(0, 2) + hand_made_tokenizer();
  write(dir / "m.gguf", model.config, model, options);

  const std::string got = contents(dir / "m.gguf"), head = hand_made_header();
  CHECK(got.size() == head.size() + 5184 + 96);
  CHECK(got.substr(0, head.size()) == head);
  const std::string data = got.substr(head.size());
  using namespace std::string_literals;
  const std::string zero_q4 = "\x00\x80"s + std::string(16, '\x88');  // d is 0 / -8: -0
  CHECK(data.substr(0, 64) == repeated(zero_q4, 2) + std::string(28, '\0'));
  CHECK(data.substr(64, 128) == repeated("\x00\x00\x80\x3f"s, 32));  // 1.0
  // F16, the rows in the order 1, 3, 2, 4: pairs of RoPE side by side.
  CHECK(data.substr(192, 256) ==
        repeated("\x00\x3c"s, 32) + repeated("\x00\x42"s, 32) + repeated("\x00\x40"s, 32) + repeated("\x00\x44"s, 32));
  // Expert 0: d = 1, codes 0 and 15 at the ends, 8 between. Expert 1: d = -1, codes 0 and 7.
  const std::string first = "\x00\x3c"s + "\x80"s + std::string(14, '\x88') + "\xf8"s;
  const std::string second = "\x00\xbc"s + "\x80"s + std::string(14, '\x88') + "\x78"s;
  CHECK(data.substr(1600, 1152) == repeated(first, 32) + repeated(second, 32));
  // d = 1, codes 127, -1, zeros and 2; a row of zeros.
  CHECK(data.substr(5184) ==
        "\x00\x3c\x7f\xff"s + std::string(29, '\0') + "\x02"s + std::string(34, '\0') + std::string(28, '\0'));
}

TEST_CASE("what a file cannot hold is refused by name and numbers, and the file stays as it was") {
  const test::TempDir dir;
  const std::filesystem::path path = dir / "m.gguf";
  test::write_text(path, "what was there");
  const auto refusal = [&](const ModelConfig& config, WeightSource source, const GgufOptions& options) {
    const Error error = error_of([&] { write(path, config, source, options); });
    CHECK(contents(path) == "what was there");
    CHECK(std::distance(std::filesystem::directory_iterator(dir.path()), {}) == 1);
    return error;
  };
  const test::RandomModel random(block_config());
  const auto source = [&](const TensorSlot& s, const Shape<2>&) { return random.model.weights.at(s); };
  const ModelConfig& config = random.model.config;

  ModelConfig narrow = config;
  narrow.hidden_dim = 40;
  const Error blocks = refusal(narrow, source, all_in(GgmlType::kQ8_0));
  CHECK(blocks.code() == ErrorCode::kInvalidArgument);
  CHECK(names(blocks, "tensor blk.0.ffn_down_exps.weight has rows of 40 weights, Q8_0 has blocks of 32"));
  narrow = config;
  narrow.head_dim = 6;
  CHECK(names(refusal(narrow, source, all_in(GgmlType::kQ4_0)), "blk.0.attn_output.weight has rows of 24 weights"));

  GgufOptions options = all_in(GgmlType::kQ8_0);
  options.formats.embedding = GgmlType::kQ4_K;
  CHECK(names(refusal(config, source, options), "type Q4_K, expected F16, Q8_0 or Q4_0"));
  options = all_in(GgmlType::kQ8_0);
  options.tokenizer =
      test::gguf_header(0, 1) + gguf_key("tokenizer.ggml.model", GgufType::kString, std::string("llama"));
  CHECK(names(refusal(config, source, options), "the tokenizer has 0 tokens, the model 50 rows"));

  std::vector<float> weights;
  const auto with = [&](TensorKind kind, float bad) {
    return [&weights, &random, kind, bad](const TensorSlot& slot, const Shape<2>& shape) -> MatrixView {
      const bool here = slot.kind == kind && slot.layer == 1 && (slot.expert < 0 || slot.expert == 2);
      if (!here) return random.model.weights.at(slot);
      weights.assign(static_cast<std::size_t>(shape.count()), 0.25f);
      weights[static_cast<std::size_t>(5 * shape[1] + 7)] = bad;
      return {DType::kF32, shape[0], shape[1], reinterpret_cast<const std::byte*>(weights.data())};
    };
  };
  const auto of_expert = with(TensorKind::kW3, 70000);
  const Error large = refusal(config, of_expert, all_in(GgmlType::kF16));
  CHECK(large.code() == ErrorCode::kBadFormat);
  CHECK(names(large, "layers.1.experts.2.w3 has 70000 in row 5, which F16 cannot hold"));
  const auto not_a_number = with(TensorKind::kWk, std::numeric_limits<float>::quiet_NaN());
  CHECK(names(refusal(config, not_a_number, all_in(GgmlType::kQ4_0)), "layers.1.wk has nan in row"));
  const auto of_router = with(TensorKind::kRouter, std::numeric_limits<float>::infinity());
  CHECK(names(refusal(config, of_router, all_in(GgmlType::kQ8_0)), "layers.1.gate"));

  const test::PackedModel packed(random.model, DType::kP4, DType::kP8);
  const Error again = refusal(
      config, [&](const TensorSlot& s, const Shape<2>&) { return packed.model.weights.at(s); }, all_in(GgmlType::kF16));
  CHECK(again.code() == ErrorCode::kUnsupported);
  CHECK(names(again, "layers.0.wq: P8 weights cannot be packed again"));
}

TEST_CASE("progress tells all bytes, and what it throws ends the writing") {
  const test::TempDir dir;
  const test::RandomModel random(block_config());
  GgufOptions options = all_in(GgmlType::kQ8_0);
  Index last = 0, all = 0;
  options.progress = [&](Index done, Index of) {
    CHECK(done >= last);
    last = done;
    all = of;
  };
  write(dir / "m.gguf", random.model, options);
  CHECK(last == all);
  CHECK(all > 0);
  CHECK(all < static_cast<Index>(std::filesystem::file_size(dir / "m.gguf")));
  options.progress = [](Index done, Index of) { require(done < of, ErrorCode::kCancelled, "stopped"); };
  const std::string before = contents(dir / "m.gguf");
  CHECK(error_of([&] { write(dir / "m.gguf", random.model, options); }).code() == ErrorCode::kCancelled);
  CHECK(contents(dir / "m.gguf") == before);
}
