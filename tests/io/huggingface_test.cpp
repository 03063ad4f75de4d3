#include "mixtral/io/huggingface.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>
#include <string>

#include "mixtral/core/error.hpp"
#include "mixtral/io/safetensors.hpp"
#include "support/checkpoint_files.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"

using namespace mixtral;
using test::check_same_values;
using test::error_of;
using test::Files;
using test::names;
using test::TempDir;
using test::value;

namespace {

const std::filesystem::path kGolden = test::golden_dir();

bool same_bytes(const MatrixView& view, std::span<const std::byte> want) {
  return static_cast<std::size_t>(view.bytes()) == want.size() && std::equal(want.begin(), want.end(), view.data);
}

Files base_files() { return test::read_dir(kGolden / "malformed_hf/_base"); }

// Loads a directory with these files. The mapping outlives the directory.
Checkpoint load(const Files& files) {
  const TempDir dir;
  test::write_dir(dir.path(), files);
  return load_huggingface(dir.path());
}

// The base with a model.safetensors of other tensors.
Files with_tensors(Files files, const std::vector<SafetensorsEntry>& tensors) {
  files["model.safetensors"] = test::safetensors_text(tensors);
  return files;
}

void replace(std::string& text, const std::string& from, const std::string& to) {
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("golden model A loads from one file: its config and every slot") {
  const Checkpoint a = load_huggingface(kGolden / "models/A");
  CHECK(a.model.config.dim == 64);
  CHECK(a.model.config.hidden_dim == 128);
  CHECK(a.model.config.n_layers == 2);
  CHECK(a.model.config.n_heads == 4);
  CHECK(a.model.config.n_kv_heads == 2);
  CHECK(a.model.config.head_dim == 16);
  CHECK(a.model.config.n_experts == 8);
  CHECK(a.model.config.n_experts_per_tok == 2);
  CHECK(a.model.config.vocab_size == 512);
  CHECK(a.model.config.max_positions == 256);
  CHECK(a.model.config.sliding_window == 0);
  CHECK(a.model.config.norm_eps == 1e-5f);
  CHECK(a.model.config.rope_theta == 1e6f);
  CHECK(a.model.config.rope_pairing == RopePairing::kHalfSplit);
  CHECK(!a.model.config.tied_embeddings);
  CHECK(a.model.config.bos_id == 1);
  CHECK(a.model.config.eos_ids == std::vector<TokenId>{2});
  CHECK_NOTHROW(validate(a.model.weights, a.model.config));
  std::set<const std::byte*> places;
  std::size_t n_slots = 0;
  for_each_tensor(a.model.config, [&](const TensorSlot& slot, const Shape<2>&) {
    CHECK(a.model.weights.at(slot).dtype == DType::kF32);
    places.insert(a.model.weights.at(slot).data);
    ++n_slots;
  });
  CHECK(places.size() == n_slots);
  CHECK(a.tensors.size() == n_slots);
}

TEST_CASE("weights are the bytes of the file's tensors") {
  const Checkpoint a = load_huggingface(kGolden / "models/A");
  const SafetensorsFile file(kGolden / "models/A/model.safetensors");
  const struct {
    TensorSlot slot;
    std::string name;
  } cases[] = {
      {{TensorKind::kEmbedding}, "model.embed_tokens.weight"},
      {{TensorKind::kAttentionNorm, 1}, "model.layers.1.input_layernorm.weight"},
      {{TensorKind::kWq, 0}, "model.layers.0.self_attn.q_proj.weight"},
      {{TensorKind::kWk, 0}, "model.layers.0.self_attn.k_proj.weight"},
      {{TensorKind::kWv, 1}, "model.layers.1.self_attn.v_proj.weight"},
      {{TensorKind::kWo, 1}, "model.layers.1.self_attn.o_proj.weight"},
      {{TensorKind::kFfnNorm, 0}, "model.layers.0.post_attention_layernorm.weight"},
      {{TensorKind::kRouter, 1}, "model.layers.1.block_sparse_moe.gate.weight"},
      {{TensorKind::kW1, 0, 7}, "model.layers.0.block_sparse_moe.experts.7.w1.weight"},
      {{TensorKind::kW2, 1, 3}, "model.layers.1.block_sparse_moe.experts.3.w2.weight"},
      {{TensorKind::kW3, 1, 0}, "model.layers.1.block_sparse_moe.experts.0.w3.weight"},
      {{TensorKind::kFinalNorm}, "model.norm.weight"},
      {{TensorKind::kHead}, "lm_head.weight"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.name);
    CHECK(same_bytes(a.model.weights.at(c.slot), file.at(c.name).data));
  }
}

TEST_CASE("golden model B loads from two shards in bf16, with its window") {
  const Checkpoint b = load_huggingface(kGolden / "models/B");
  CHECK(b.model.config.sliding_window == 16);
  CHECK_NOTHROW(validate(b.model.weights, b.model.config));
  std::set<std::string> files;
  for (const CheckpointTensor& tensor : b.tensors) {
    CHECK(tensor.type == "BF16");
    files.insert(tensor.file);
  }
  CHECK(files == std::set<std::string>{"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"});
}

TEST_CASE("the tiny model loads") {
  const Checkpoint tiny = load_huggingface(test::tiny_dir());
  CHECK(tiny.model.config.dim == 192);
  CHECK(tiny.model.config.n_layers == 5);
  CHECK(tiny.model.config.head_dim == 32);
  CHECK_NOTHROW(validate(tiny.model.weights, tiny.model.config));
}

TEST_CASE("every malformed checkpoint is refused with the culprit's name") {
  const std::string q_proj = "model.safetensors: tensor \"model.layers.0.self_attn.q_proj.weight\": ";
  const struct {
    std::string directory;
    ErrorCode code;
    std::string culprit;
  } cases[] = {
      {"st_empty", ErrorCode::kBadFormat, "model.safetensors: is empty"},
      {"header_length_max", ErrorCode::kBadFormat, "header length 18446744073709551615"},
      {"header_length_past_end", ErrorCode::kBadFormat, "past the end of a file of 4352 bytes"},
      {"header_length_short", ErrorCode::kBadFormat, "parse error at line 1, column 1585"},
      {"header_garbage", ErrorCode::kBadFormat, "model.safetensors: header "},
      {"header_deep_nesting", ErrorCode::kBadFormat, "unexpected an array"},
      {"header_duplicate_key", ErrorCode::kBadFormat,
       "tensor \"model.layers.0.self_attn.q_proj.weight\" is given twice"},
      {"no_data_offsets", ErrorCode::kBadFormat, q_proj + "no data_offsets"},
      {"offsets_overlap", ErrorCode::kBadFormat, "_proj.weight\": begins at "},
      {"offsets_reversed", ErrorCode::kBadFormat, q_proj + "data_offsets ["},
      {"offsets_past_end", ErrorCode::kBadFormat, q_proj + "data_offsets ["},
      {"offsets_negative", ErrorCode::kBadFormat, q_proj + "data_offsets: unexpected -256"},
      {"offsets_huge_int", ErrorCode::kBadFormat, q_proj + "data_offsets: unexpected 1"},
      {"trailing_bytes", ErrorCode::kBadFormat, "model.safetensors: 64 bytes after the last tensor"},
      {"dtype_unknown", ErrorCode::kUnsupported, "dtype \"F33\""},
      {"dtype_size_mismatch", ErrorCode::kBadFormat, q_proj + "F16 [8, 8] needs 128 bytes"},
      {"shape_product_mismatch", ErrorCode::kBadFormat, q_proj + "F32 [8, 9] needs 288 bytes"},
      {"shape_overflow_to_64", ErrorCode::kBadFormat, q_proj + "shape [8, 2305843009213693960] overflows"},
      {"kv_rows_wrong", ErrorCode::kBadFormat, "k_proj.weight\": expected [4, 8], file has [8, 8]"},
      {"missing_q_proj", ErrorCode::kBadFormat, "no tensor model.layers.0.self_attn.q_proj.weight"},
      {"missing_lm_head_untied", ErrorCode::kBadFormat, "no tensor lm_head.weight"},
      {"index_missing_shard", ErrorCode::kNotFound, "model-00002-of-00002.safetensors: cannot open"},
      {"index_tensor_not_in_shard", ErrorCode::kBadFormat,
       "weight_map: \"model.layers.0.self_attn.q_proj.weight\" is not in \"model-0000"},
      {"index_path_traversal", ErrorCode::kBadFormat, "\"../index_path_traversal/model-00002-of-00002.safetensors\""},
      {"no_config", ErrorCode::kNotFound, "no_config/config.json: cannot open"},
      {"config_garbage", ErrorCode::kBadFormat, "config_garbage/config.json: parse error"},
      {"config_deep_nesting", ErrorCode::kBadFormat, "config.json: nested deeper than 64 levels"},
      {"eps_nan", ErrorCode::kBadFormat, "config.json: rms_norm_eps is NaN, expected a number from 0"},
      {"theta_1e308", ErrorCode::kBadFormat, "config.json: rope_theta is 1e+308, expected a number"},
      {"hidden_size_negative", ErrorCode::kBadFormat, "config.json: hidden_size is -8, expected"},
      {"hidden_size_string", ErrorCode::kBadFormat, "config.json: hidden_size is \"8\", expected an integer"},
      {"vocab_size_huge_int", ErrorCode::kBadFormat, "config.json: vocab_size is 1000000000000000000000000000000, "},
      {"vocab_size_17", ErrorCode::kBadFormat, "expected [17, 8], file has [16, 8]"},
      {"experts_per_tok_3", ErrorCode::kBadFormat,
       "config.json: num_experts_per_tok is 3, expected an integer from 1 to 2"},
      {"kv_heads_0", ErrorCode::kBadFormat, "config.json: num_key_value_heads is 0, expected an integer from 1 to 2"},
      {"activation_gelu", ErrorCode::kUnsupported, "config.json: hidden_act is \"gelu\", expected \"silu\""},
  };
  CHECK(std::size(cases) == 36);
  for (const auto& c : cases) {
    CAPTURE(c.directory);
    const Error error = error_of([&] { load_huggingface(kGolden / "malformed_hf" / c.directory); });
    CHECK(error.code() == c.code);
    CHECK(names(error, c.culprit));
    CHECK(names(error, c.directory));
  }
}

TEST_CASE("legal but unusual checkpoints load with the base's values") {
  const Checkpoint base = load_huggingface(kGolden / "malformed_hf/_base");
  for (const std::string name : {"extra_inv_freq", "legal_no_metadata", "legal_mixed_dtypes", "legal_header_order",
                                 "legal_fused_experts", "legal_rope_parameters", "legal_head_dim_null"}) {
    CAPTURE(name);
    const Checkpoint got = load_huggingface(kGolden / "malformed_hf" / name);
    CHECK_NOTHROW(validate(got.model.weights, got.model.config));
    CHECK(got.model.config.rope_theta == 10000);
    CHECK(got.model.config.head_dim == 4);
    check_same_values(got.model, base.model);
  }
}

TEST_CASE("in a fused file the gate projection comes first") {
  // The base's w1 and w3 differ, so "legal_fused_experts has the base's values" above would notice a swap.
  const Checkpoint base = load_huggingface(kGolden / "malformed_hf/_base");
  for (const moe::ExpertWeights& expert : base.model.weights.layers[0].experts)
    CHECK(value(expert.w1, 0, 0) != value(expert.w3, 0, 0));

  const SafetensorsFile file(kGolden / "malformed_hf/legal_fused_experts/model.safetensors");
  const SafetensorsEntry& stack = file.at("model.layers.0.mlp.experts.gate_up_proj");  // [2, 2 * 4, 8] F32
  const Checkpoint fused = load_huggingface(kGolden / "malformed_hf/legal_fused_experts");
  const std::size_t half = 4 * 8 * 4;
  for (std::size_t e = 0; e < 2; ++e) {
    CHECK(same_bytes(fused.model.weights.layers[0].experts[e].w1, stack.data.subspan(2 * e * half, half)));
    CHECK(same_bytes(fused.model.weights.layers[0].experts[e].w3, stack.data.subspan((2 * e + 1) * half, half)));
  }
}

TEST_CASE("weights at odd addresses are used where they lie") {
  Files files = base_files();
  std::string& model = files["model.safetensors"];
  const auto length = static_cast<std::size_t>(test::header_bytes(model));
  model = test::with_header(model.substr(8, length) + " ", std::string_view(model).substr(8 + length));
  const Checkpoint odd = load(files);
  CHECK(reinterpret_cast<std::uintptr_t>(odd.model.weights.embedding.data) % 2 == 1);
  check_same_values(odd.model, load_huggingface(kGolden / "malformed_hf/_base").model);
}

TEST_CASE("any number of shards gives the values of one file") {
  const Checkpoint base = load_huggingface(kGolden / "malformed_hf/_base");
  for (const std::size_t n_shards : {1u, 2u, 5u}) {
    CAPTURE(n_shards);
    check_same_values(load(test::sharded(base_files(), n_shards)).model, base.model);
    check_same_values(load(test::sharded(test::read_dir(kGolden / "malformed_hf/legal_fused_experts"), n_shards)).model,
                      base.model);
  }
}

TEST_CASE("views stay valid when the checkpoint moves and only the weights are kept") {
  Weights kept;
  {
    Checkpoint loaded = load_huggingface(kGolden / "models/B");
    const Checkpoint moved = std::move(loaded);
    kept = moved.model.weights;
  }
  CHECK(
      same_bytes(kept.final_norm,
                 SafetensorsFile(kGolden / "models/B/model-00002-of-00002.safetensors").at("model.norm.weight").data));
}

TEST_CASE("a config may not claim more parameters than the files can hold") {
  for (const auto& [from, to] : std::initializer_list<std::pair<std::string, std::string>>{
           {"\"num_local_experts\": 2", "\"num_local_experts\": 65536"},
           {"\"vocab_size\": 16", "\"vocab_size\": 268435456"},
           {"\"intermediate_size\": 4", "\"intermediate_size\": 268435456"}}) {
    Files files = base_files();
    replace(files["config.json"], from, to);
    CAPTURE(to);
    const Error error = error_of([&] { load(files); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, "config.json: claims "));
    CHECK(names(error, "the tensors hold 2720 bytes"));
  }
}

TEST_CASE("a tied model has no head of its own and ignores one in the file") {
  Files files = base_files();
  replace(files["config.json"], "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
  CHECK(load(files).model.weights.head.data == nullptr);
  const SafetensorsFile file(kGolden / "malformed_hf/missing_lm_head_untied/model.safetensors");
  CHECK(load(with_tensors(files, file.entries())).model.config.tied_embeddings);
  const TempDir dir;
  test::write_dir(dir.path(), files);
  const Checkpoint headless = load_huggingface(dir.path(), Head::kNone);
  CHECK(headless.model.config.tied_embeddings);
  CHECK_FALSE(headless.model.config.has_head);
  CHECK(headless.model.weights.embedding.data != nullptr);
}

TEST_CASE("tensors that the model has no place for are refused, not dropped") {
  const SafetensorsFile file(kGolden / "malformed_hf/_base/model.safetensors");
  const std::vector<std::byte> zeros(32);
  for (const std::string name :
       {"model.layers.0.self_attn.q_proj.bias", "model.layers.0.mlp.gate.weight", "score.weight", "layers.x.weight"}) {
    std::vector<SafetensorsEntry> tensors = file.entries();
    tensors.push_back({name, DType::kF32, {8}, zeros});
    const Error error = error_of([&] { load(with_tensors(base_files(), tensors)); });
    CHECK(error.code() == ErrorCode::kUnsupported);
    CHECK(names(error, "model.safetensors: tensor \"" + name + "\": the model of config.json has no place for it"));
  }
}

TEST_CASE("weights in other dtypes are unsupported") {
  const SafetensorsFile file(kGolden / "malformed_hf/_base/model.safetensors");
  std::vector<SafetensorsEntry> tensors = file.entries();
  const auto norm =
      std::find_if(tensors.begin(), tensors.end(), [](const auto& t) { return t.name == "model.norm.weight"; });
  norm->dtype = DType::kI32;
  const Error error = error_of([&] { load(with_tensors(base_files(), tensors)); });
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(names(error, "tensor \"model.norm.weight\": dtype I32, expected F32, F16 or BF16"));
}

TEST_CASE("a tensor of another type is named with it, even where its shape would not fit") {
  const SafetensorsFile file(kGolden / "malformed_hf/_base/model.safetensors");
  const std::vector<std::byte> bytes(3);
  std::vector<SafetensorsEntry> tensors = file.entries();
  for (SafetensorsEntry& t : tensors) {
    if (t.name == "lm_head.weight") t = {t.name, DType::kF8E4M3, {3, 1}, bytes};
  }
  const Error error = error_of([&] { load(with_tensors(base_files(), tensors)); });
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(names(error, "model.safetensors: tensor \"lm_head.weight\": dtype F8_E4M3, expected F32, F16 or BF16"));
}

TEST_CASE("another number of layers than the tensors have is told with both") {
  for (const auto& [layers, message] : std::initializer_list<std::pair<std::string, std::string>>{
           {"2", "config.json: the number of layers is 2, the tensors have 1: the last is of \"model.layers.0."},
           {"65536", "config.json: the number of layers is 65536, the tensors have 1: the last is of"}}) {
    Files files = base_files();
    replace(files["config.json"], "\"num_hidden_layers\": 1", "\"num_hidden_layers\": " + layers);
    const Error error = error_of([&] { load(files); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, message));
  }
  const SafetensorsFile file(kGolden / "malformed_hf/_base/model.safetensors");
  const std::vector<std::byte> zeros(32);
  std::vector<SafetensorsEntry> tensors = file.entries();
  tensors.push_back({"model.layers.4.input_layernorm.weight", DType::kF32, {8}, zeros});
  CHECK(
      names(error_of([&] { load(with_tensors(base_files(), tensors)); }),
            "the number of layers is 1, the tensors have 5: the last is of \"model.layers.4.input_layernorm.weight\""));
  tensors.back().name = "model.layers.4.self_attn.rotary_emb.inv_freq";  // ignored, also where no layer is
  CHECK_NOTHROW(load(with_tensors(base_files(), tensors)));
}

TEST_CASE("numbered files without an index are one checkpoint, if all are there") {
  const Checkpoint base = load_huggingface(kGolden / "malformed_hf/_base");
  Files files = test::sharded(base_files(), 3);
  files.erase("model.safetensors.index.json");
  check_same_values(load(files).model, base.model);
  CHECK(load(files).tensors.size() == base.tensors.size());
  files["model-notes.safetensors"] = files["other-00001-of-00002.safetensors"] = "not looked at";
  check_same_values(load(files).model, base.model);

  Files fewer = files;
  fewer.erase("model-00002-of-00003.safetensors");
  CHECK(names(error_of([&] { load(fewer); }), "model-00002-of-00003.safetensors: no such file"));
  Files twice = files;
  twice["model-00003-of-00003.safetensors"] = files["model-00001-of-00003.safetensors"];
  const Error error = error_of([&] { load(twice); });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, "is also in "));
}

TEST_CASE("settings of a quantisation that the tensors do not have are ignored with a note") {
  Files files = base_files();
  replace(files["config.json"], "{", R"({"quantization_config":{"quant_method":"gptq"},)");
  const Checkpoint loaded = load(files);
  check_same_values(loaded.model, load_huggingface(kGolden / "malformed_hf/_base").model);
  CHECK(loaded.notes == std::vector<std::string>{"quantization_config: quant_method is \"gptq\" is ignored, as all "
                                                 "tensors are F32, F16 or BF16"});
  CHECK(load(base_files()).notes.empty());

  const SafetensorsFile file(kGolden / "malformed_hf/_base/model.safetensors");
  std::vector<SafetensorsEntry> tensors = file.entries();
  const std::vector<std::byte> zeros(8);
  tensors.push_back({"model.layers.0.self_attn.q_proj.qweight", DType::kI32, {2}, zeros});
  const Error error = error_of([&] { load(with_tensors(files, tensors)); });
  CHECK(error.code() == ErrorCode::kUnsupported);
  CHECK(names(error,
              "config.json: quantization_config: quant_method is \"gptq\", and "
              "\"model.layers.0.self_attn.q_proj.qweight\" is I32: quantised checkpoints are not supported"));
}

TEST_CASE("a router or a norm with a number that is not finite is refused with its place") {
  const SafetensorsFile file(kGolden / "malformed_hf/_base/model.safetensors");
  const struct {
    std::string tensor;
    std::size_t element;
    float value;
    std::string message;
  } cases[] = {
      {"model.layers.0.block_sparse_moe.gate.weight", 11, std::nanf(""), ": layers.0.gate: expert 1, element 3 is nan"},
      {"model.layers.0.input_layernorm.weight", 7, INFINITY, ": layers.0.attention_norm: element 7 is inf, expected"},
      {"model.layers.0.post_attention_layernorm.weight", 0, -INFINITY, ": layers.0.ffn_norm: element 0 is -inf"},
      {"model.norm.weight", 2, std::nanf(""), ": final_norm: element 2 is nan"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.tensor);
    std::vector<SafetensorsEntry> tensors = file.entries();
    std::vector<std::byte> bytes;
    for (SafetensorsEntry& t : tensors) {
      if (t.name != c.tensor) continue;
      bytes.assign(t.data.begin(), t.data.end());
      std::memcpy(bytes.data() + c.element * sizeof(float), &c.value, sizeof(float));
      t.data = bytes;
    }
    const Error error = error_of([&] { load(with_tensors(base_files(), tensors)); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, c.message));
  }
}

TEST_CASE("an index that is malformed or leads out of its directory is refused") {
  const struct {
    std::string index, message;
  } cases[] = {
      {"[]", "index.json: an array, expected an object"},
      {"{}", "weight_map is missing"},
      {R"({"weight_map":[]})", "weight_map is an array, expected an object"},
      {R"({"weight_map":{"a":1}})", "weight_map: \"a\" is 1, expected a file name"},
      {R"({"weight_map":{"a":""}})", "shard \"\" is not a plain file name"},
      {R"({"weight_map":{"a":".."}})", "shard \"..\" is not a plain file name"},
      {R"({"weight_map":{"a":"/etc/passwd"}})", "shard \"/etc/passwd\" is not a plain file name"},
      {R"({"weight_map":{"a":"x\u0000y"}})", "is not a plain file name"},
      {R"({"weight_map":{"a":"config.json"}})", "config.json: no safetensors file: it looks like JSON"},
      {R"({"weight_map":{}})", "config.json: the number of layers is 1, the tensors have 0"},
  };
  for (const auto& c : cases) {
    CAPTURE(c.index);
    Files files = base_files();
    files.erase("model.safetensors");
    files["model.safetensors.index.json"] = c.index;
    const Error error = error_of([&] { load(files); });
    CHECK(error.code() == ErrorCode::kBadFormat);
    CHECK(names(error, c.message));
  }
}

TEST_CASE("a directory without weights names both files it looked for") {
  Files files = base_files();
  files.erase("model.safetensors");
  const Error error = error_of([&] { load(files); });
  CHECK(error.code() == ErrorCode::kNotFound);
  CHECK(names(error, "neither model.safetensors nor model.safetensors.index.json exists"));
}

TEST_CASE("links that lead nowhere, as a copy of a snapshot has them, are told with their ends") {
  const TempDir dir;
  Files files = base_files();
  files.erase("model.safetensors");
  test::write_dir(dir.path(), files);
  std::filesystem::create_symlink("../../blobs/0123", dir / "model.safetensors");
  const Error error = error_of([&] { load_huggingface(dir.path()); });
  CHECK(error.code() == ErrorCode::kNotFound);
  CHECK(names(error, "model.safetensors: cannot open, is a link to ../../blobs/0123: No such file"));
}

TEST_CASE("a saved MixtralModel has no head and names without their prefix") {
  for (const std::string base : {"_base", "legal_fused_experts"}) {
    CAPTURE(base);
    Files files = test::read_dir(kGolden / "malformed_hf" / base);
    const std::string original = files.at("model.safetensors");
    const SafetensorsFile source(std::as_bytes(std::span(original)), base);
    std::vector<SafetensorsEntry> tensors = source.entries();
    std::erase_if(tensors, [](const auto& t) { return t.name == "lm_head.weight"; });
    for (SafetensorsEntry& t : tensors) {
      REQUIRE(t.name.starts_with("model."));
      t.name.erase(0, 6);
    }
    files = with_tensors(files, tensors);
    replace(files["config.json"], "MixtralForCausalLM", "MixtralModel");
    CHECK(names(error_of([&] { load(files); }), "no tensor lm_head.weight"));
    const TempDir dir;
    test::write_dir(dir.path(), files);
    const Checkpoint got = load_huggingface(dir.path(), Head::kNone);
    CHECK_NOTHROW(validate(got.model.weights, got.model.config));
    check_same_values(load_huggingface(kGolden / "malformed_hf" / base).model, got.model);
  }
}
