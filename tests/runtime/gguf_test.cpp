// Models from GGUF files: logits, tokenizers, conversations.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <numeric>

#include "mixtral/core/file.hpp"
#include "mixtral/io/check_weights.hpp"
#include "mixtral/io/gguf.hpp"
#include "mixtral/io/gguf_weights.hpp"
#include "mixtral/io/gguf_writer.hpp"
#include "mixtral/io/packed.hpp"
#include "mixtral/runtime/evaluator.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "mixtral/text/vocabulary_files.hpp"
#include "support/error_of.hpp"
#include "support/golden.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using nlohmann::json;

namespace {

LoadedModel open(const std::filesystem::path& path, QuantizedImport import = QuantizedImport::kFloat32) {
  return LoadedModel(path, {.executor = std::make_shared<SerialExecutor>(), .import = import});
}

SequenceTrace trace_of(const LoadedModel& model, const std::vector<TokenId>& ids) {
  SequenceTrace trace;
  Evaluator(model, DType::kF32).run(ids, std::span(ids).subspan(1), &trace);
  return trace;
}

// The rows of the expected file's logits, which may be those of some positions only.
std::vector<float> rows_of(const SequenceTrace& trace, const SafetensorsFile& expected, const std::string& length,
                           Index n_vocab) {
  const std::string positions = length + ".logits_positions";
  if (expected.find(positions) == nullptr) return trace.logits;
  std::vector<float> out;
  for (const std::int32_t at : test::elements<std::int32_t>(expected, positions)) {
    const auto begin = trace.logits.begin() + at * n_vocab;
    out.insert(out.end(), begin, begin + n_vocab);
  }
  return out;
}

// KL(want || got) of rows of logits, mean and largest.
std::pair<double, double> divergence(std::span<const float> want, std::span<const float> got, std::size_t n_vocab) {
  double sum = 0, most = 0;
  const std::size_t rows = want.size() / n_vocab;
  for (std::size_t r = 0; r < rows; ++r) {
    const auto log_sum = [&](std::span<const float> all) {
      double total = 0;
      for (std::size_t i = 0; i < n_vocab; ++i) total += std::exp(static_cast<double>(all[r * n_vocab + i]));
      return std::log(total);
    };
    const double of_want = log_sum(want), of_got = log_sum(got);
    double kl = 0;
    for (std::size_t i = r * n_vocab; i < (r + 1) * n_vocab; ++i) {
      const double p = static_cast<double>(want[i]) - of_want;
      kl += std::exp(p) * (p - (static_cast<double>(got[i]) - of_got));
    }
    sum += kl;
    most = std::max(most, kl);
  }
  return {sum / static_cast<double>(rows), most};
}

// All golden files, with the logits of their model.
template <class F>
void for_each_file(F&& f) {
  for (const char* set : {"gguf", "gguf_iq"}) {
    const std::filesystem::path dir = test::golden_dir() / set;
    const json manifest = test::read_json(dir / "manifest.json");
    for (const json& file : manifest.at("files")) {
      if (!file.contains("expected_logits")) continue;
      const std::filesystem::path path = dir / file.at("files").at(0).get<std::string>();
      CAPTURE(path.string());
      const SafetensorsFile expected(dir / file.at("expected_logits").get<std::string>());
      f(path, expected, manifest.at("tolerances"));
    }
  }
}

// The model's GGUF file, with its tokenizer.
void write_gguf_of(const std::filesystem::path& path, const LoadedModel& model, GgmlType type) {
  const Checkpoint& checkpoint = model.checkpoint;
  const ModelConfig& config = checkpoint.model.config;
  const std::vector<EmbeddedFile> files =
      checkpoint.files.empty() ? read_tokenizer_files(model.path) : checkpoint.files;
  std::vector<std::string> notes;
  SerialExecutor executor;
  Scratch scratch;
  CheckpointWeights source(checkpoint);
  write_gguf(path, {model.table, executor, scratch}, config, source,
             {.formats = GgufFormats::all(type),
              .name = "m",
              .tokenizer = gguf_tokenizer(files, model.path.string(), config.vocab_size, config.eos_ids, notes),
              .progress = {}});
  CHECK(notes.empty());
}

}  // namespace

TEST_CASE("logits of every golden GGUF file, with weights imported exactly") {
  int files = 0;
  for_each_file([&](const auto& path, const SafetensorsFile& expected, const json& tolerances) {
    const LoadedModel model = open(path);
    const test::Tolerance tolerance{tolerances.at("logits").at("atol"), tolerances.at("logits").at("rtol")};
    for (const char* length : {"T1", "T9", "T40"}) {
      CAPTURE(length);
      const auto name = [&](const char* what) { return str(length, ".", what); };
      const std::vector<TokenId> ids = test::elements<std::int32_t>(expected, name("ids"));
      const SequenceTrace trace = trace_of(model, ids);
      CHECK(test::excess(rows_of(trace, expected, length, model.config().vocab_size),
                         test::elements<float>(expected, name("logits")), tolerance) <= 1);
      for (std::size_t layer = 0; layer < trace.layers.size(); ++layer) {
        const std::string experts = name(str("layer.", layer, ".expert_ids").c_str());
        CHECK(trace.layers[layer].expert_ids == test::elements<std::int32_t>(expected, experts));
      }
    }
    ++files;
  });
  CHECK(files == 16);
}

TEST_CASE("imported to packed weights, the golden files stay near") {
  int exact_files = 0;
  for_each_file([&](const auto& path, const SafetensorsFile& expected, const json& tolerances) {
    const LoadedModel model = open(path, QuantizedImport::kPacked);
    const std::vector<TokenId> ids = test::elements<std::int32_t>(expected, "T40.ids");
    const std::vector<float> got = rows_of(trace_of(model, ids), expected, "T40", model.config().vocab_size);
    const auto [mean, most] = divergence(test::elements<float>(expected, "T40.logits"), got,
                                         static_cast<std::size_t>(model.config().vocab_size));
    MESSAGE(path.filename().string(), ": KL ", mean, ", at most ", most);
    // The same weights: only the activations are rounded. Other types of four bits become P4, whose scales are other
    // ones: a second rounding, of random weights, which exaggerate.
    const bool exact = std::ranges::all_of(
        model.checkpoint.imported, [](const ImportedGroup& g) { return g.to != DType::kP4 && g.to != DType::kP8; });
    const json& budget = tolerances.at("quantised_activations");
    CHECK(mean < (exact ? budget.at("kl_mean").get<double>() : 0.2));
    if (exact) CHECK(most < budget.at("kl_max").get<double>());
    exact_files += exact;
  });
  CHECK(exact_files >= 4);
}

TEST_CASE("files of the same weights in other forms give the same bits") {
  const std::filesystem::path dir = test::golden_dir() / "gguf/models";
  for (const QuantizedImport import : {QuantizedImport::kFloat32, QuantizedImport::kPacked}) {
    const std::vector<TokenId> ids = {1, 5, 9, 200, 7, 31, 77};
    const std::vector<float> want = trace_of(open(dir / "V_q8_0.gguf", import), ids).logits;
    for (const char* name :
         {"V_q8_0_v2.gguf", "V_q8_0_split-00001-of-00002.gguf", "V_q8_0_align64.gguf", "V_q8_0_old.gguf"}) {
      CAPTURE(name);
      CHECK(trace_of(open(dir / name, import), ids).logits == want);
    }
  }
}

TEST_CASE("a GGUF file and the Hugging Face directory of the same model are the same model") {
  const std::filesystem::path dir = test::golden_dir() / "gguf/models";
  const LoadedModel gguf = open(dir / "S_f16.gguf"), hf = open(dir / "S_hf");
  CHECK(gguf.checkpoint.mapped);  // nothing was copied
  for (const char* text : {"Hello world", " two  spaces", "caf\xC3\xA9 \xF0\x9F\x99\x82", "", "\n\n", "a<s>b</s>"}) {
    CAPTURE(text);
    const std::vector<TokenId> ids = hf.prompt(text);
    CHECK(gguf.prompt(text) == ids);
    CHECK(gguf.prompt(text, SpecialTokens::kAll) == hf.prompt(text, SpecialTokens::kAll));
    const std::vector<float> a = trace_of(gguf, ids).logits, b = trace_of(hf, ids).logits;
    CHECK(test::excess(a, b, {1e-4, 2e-5}) <= 1);
  }
  CHECK(gguf.config().eos_ids == hf.config().eos_ids);
  CHECK(gguf.config().max_positions == hf.config().max_positions);
}

TEST_CASE("the tokenizer in a GGUF file gives the golden ids") {
  const std::filesystem::path path = test::golden_dir() / "gguf/models/S_f16.gguf";
  const Tokenizer tokenizer = Tokenizer::load(path);
  const json cases = test::read_json(test::golden_dir() / "tokenizer/tokenizer_1/cases.json");
  std::size_t n = 0;
  for (const json& c : cases.at("encode")) {
    const std::string text = c.at("text");
    CHECK(tokenizer.encode(text) == c.at("ids").get<std::vector<TokenId>>());
    ++n;
  }
  MESSAGE(n, " strings");
  CHECK(n >= 100);
}

TEST_CASE("a packed file made of a GGUF one has its tokenizer") {
  const LoadedModel gguf = open(test::golden_dir() / "gguf/models/S_f16.gguf");
  const test::TempDir dir;
  SerialExecutor executor;
  Scratch scratch;
  CheckpointWeights source(gguf.checkpoint);
  pack_model(dir / "packed", {gguf.table, executor, scratch}, gguf.config(), source,
             {.formats = {DType::kBF16, DType::kBF16, DType::kBF16},
              .importance = {},
              .files = gguf.checkpoint.files,
              .progress = {}});
  const LoadedModel packed = open(dir / "packed");
  CHECK(packed.prompt("Hello world") == gguf.prompt("Hello world"));
  CHECK(packed.chat_template == gguf.chat_template);
}

TEST_CASE("packing what an import makes keeps its bits, of all types, with two types in an expert") {
  for_each_file([&](const auto& path, const SafetensorsFile& expected, const json&) {
    const LoadedModel model = open(path, QuantizedImport::kPacked);
    const test::TempDir dir;
    Scratch scratch;
    SerialExecutor executor;
    GgufWeights source(path, executor, QuantizedImport::kPacked);
    pack_model(dir / "m", {model.table, executor, scratch}, source.config(), source,
               {.formats = {}, .importance = {}, .files = {}, .progress = {}, .type_of = [&](const TensorSlot& slot) {
                  return source.type_of(slot);
                }});
    const LoadedModel packed = open(dir / "m");
    CHECK(packed.checkpoint.mapped);
    for_each_tensor(model.config(), [&](const TensorSlot& slot, const Shape<2>&) {
      const MatrixView &a = model.model().weights.at(slot), &b = packed.model().weights.at(slot);
      CHECK(a.dtype == b.dtype);
      CHECK(a.part == b.part);
      CHECK(std::memcmp(a.data, b.data, static_cast<std::size_t>(a.storage_bytes())) == 0);
    });
    const std::vector<TokenId> ids = test::elements<std::int32_t>(expected, "T9.ids");
    CHECK(trace_of(packed, ids).logits == trace_of(model, ids).logits);
    CHECK(verify_packed(dir / "m", executor).empty());
  });
}

TEST_CASE("what an import becomes is said before, without it, and while it goes on") {
  const std::filesystem::path path = test::golden_dir() / "gguf/models/K_q4_k_m.gguf";
  Index last = 0, all = 0;
  int calls = 0;
  const Checkpoint whole = load_checkpoint(path, {.progress = [&](Index done, Index total) {
                                             CHECK(done >= last);
                                             last = done, all = total;
                                             ++calls;
                                           }});
  CHECK(last == all);
  CHECK(calls > 10);
  Index tensors = 0;
  for (const CheckpointTensor& tensor : whole.tensors) tensors += tensor.bytes;
  CHECK(all == tensors);

  const Checkpoint headers = load_checkpoint(path, {.headers_only = true});
  CHECK(headers.notes == whole.notes);
  CHECK(weight_bytes(headers.model) == weight_bytes(whole.model));
  int without_data = 0;
  for_each_tensor(whole.model.config, [&](const TensorSlot& slot, const Shape<2>&) {
    const MatrixView &a = headers.model.weights.at(slot), &b = whole.model.weights.at(slot);
    CHECK(a.dtype == b.dtype);
    CHECK(a.part == b.part);
    CHECK(a.row_bytes == b.row_bytes);
    without_data += a.data == nullptr;
  });
  CHECK(without_data > 10);

  bool exact = false, near = false;
  for (const ImportedGroup& g : whole.imported) {
    if (g.from == "Q4_K" && g.to == DType::kQ4_K) exact = g.relative_error() == 0;
    if (g.from == "Q6_K") near = g.to == DType::kP8 && g.relative_error() > 0 && g.relative_error() < 0.02;
  }
  CHECK(exact);
  CHECK(near);
}

TEST_CASE("an import that does not fit into memory is refused with both numbers, and what would") {
  const std::filesystem::path path = test::golden_dir() / "gguf/models/G_q4_0.gguf";
  const Checkpoint headers = load_checkpoint(path, {.headers_only = true});
  Index need = 0;
  for_each_tensor(headers.model.config, [&](const TensorSlot& slot, const Shape<2>&) {
    const MatrixView& w = headers.model.weights.at(slot);
    if (w.data == nullptr) need += w.bytes();
  });
  const Error error = test::error_of([&] { load_checkpoint(path, {.memory_bytes = need - 1}); });
  CHECK(error.code() == ErrorCode::kOutOfMemory);
  CHECK(test::names(error, str("G_q4_0.gguf: its weights take ", need, " bytes")));
  CHECK(test::names(error, str(", ", need - 1, " (")));
  CHECK(test::names(error, "mixtral pack IN OUT --weights import"));
  CHECK(load_checkpoint(path, {.memory_bytes = need}).model.weights.head.data != nullptr);
}

TEST_CASE("views of a layer's matrices stay until another layer's is asked for, and an error is one each time") {
  const std::filesystem::path path = test::golden_dir() / "gguf/models/K_q4_k_m.gguf";
  SerialExecutor executor;
  GgufWeights source(path, executor);
  const ModelConfig& config = source.config();
  const auto ask = [&](TensorKind kind, Index layer = -1, Index expert = -1) {
    return source({kind, layer, expert}, shape_of(config, kind));
  };
  const auto sum = [](const MatrixView& w) {
    const auto* const x = reinterpret_cast<const float*>(w.data);
    return std::accumulate(x, x + w.rows * w.cols, 0.0);
  };
  const MatrixView wq = ask(TensorKind::kWq, 0);
  const double before = sum(wq);
  const MatrixView wo = ask(TensorKind::kWo, 0);
  CHECK(sum(wq) == before);
  CHECK(sum(wo) != before);
  const MatrixView w1 = ask(TensorKind::kW1, 0, 1), w2 = ask(TensorKind::kW2, 0, 1);
  CHECK(w1.data != w2.data);

  const test::TempDir dir;
  std::string bytes = read_file(path, Index{1} << 30);
  const GgufFile file(path);
  const std::string_view name = "blk.0.attn_q.weight";
  const auto data = file.find_tensor(name)->data;
  const std::string block(reinterpret_cast<const char*>(data.data()), 144);
  const std::size_t at = bytes.find(block);
  bytes[at] = 0;
  bytes[at + 1] = '\x7c';  // d is infinite
  std::ofstream(dir / "bad.gguf", std::ios::binary) << bytes;
  GgufWeights bad(dir / "bad.gguf", executor, QuantizedImport::kPacked);
  for (int i = 0; i < 2; ++i) {
    const Error error = test::error_of([&] { bad({TensorKind::kWq, 0, -1}, shape_of(bad.config(), TensorKind::kWq)); });
    CHECK(test::names(error, "layers.0.wq: tensor blk.0.attn_q.weight: a scale is infinite or no number"));
  }
}

TEST_CASE("a model of headers alone is no model to run, check or pack") {
  const std::filesystem::path path = test::golden_dir() / "gguf/models/K_q4_k_m.gguf";
  const Checkpoint headers = load_checkpoint(path, {.headers_only = true});
  SerialExecutor executor;
  const char* const why = "no weights are there, of headers alone";
  CHECK(test::names(test::error_of([&] { LoadedModel(headers.model, make_table(best_isa()), executor); }), why));
  CHECK(test::names(test::error_of([&] { check_weights(headers.model, executor); }), why));
  const test::TempDir dir;
  Scratch scratch;
  const KernelTable table = make_table(best_isa());
  CheckpointWeights source(headers);
  CHECK(test::names(test::error_of([&] {
                      pack_model(dir / "m", {table, executor, scratch}, headers.model.config, source, {});
                    }),
                    why));
  const Checkpoint headless = load_checkpoint(path, {.import = QuantizedImport::kFloat32, .head = Head::kNone});
  CheckpointWeights floats(headless);
  CHECK(test::names(test::error_of([&] {
                      write_gguf(dir / "m.gguf", {table, executor, scratch}, headless.model.config, floats, {});
                    }),
                    "without its head"));
}

TEST_CASE("a resident import leaves nothing in the file") {
  const test::TempDir dir;
  for (const char* name : {"S_f16.gguf", "K_q4_k_m.gguf"}) {
    const std::filesystem::path path = test::golden_dir() / "gguf/models" / name;
    std::filesystem::copy(path, dir / name);
    const std::vector<TokenId> ids = {1, 5, 9, 200, 7};
    const std::vector<float> want = trace_of(open(path, QuantizedImport::kPacked), ids).logits;
    const LoadedModel model(dir / name, {.executor = std::make_shared<SerialExecutor>(), .resident = true});
    CHECK(!model.checkpoint.mapped);
    std::filesystem::resize_file(dir / name, 0);  // whoever looked there now would get a signal
    CHECK(trace_of(model, ids).logits == want);
  }
}

TEST_CASE("parts of a split file are opened by the first one") {
  const std::filesystem::path dir = test::golden_dir() / "gguf/models";
  const Error error = test::error_of([&] { open(dir / "V_q8_0_split-00002-of-00002.gguf"); });
  CHECK(test::names(error, "is file 2 of 2: open the first one"));
}

TEST_CASE("the malformed golden files are refused with their name, and the unusual ones are the base model") {
  const std::filesystem::path dir = test::golden_dir() / "gguf";
  const json malformed = test::read_json(dir / "manifest.json").at("malformed");
  const SafetensorsFile base(dir / malformed.at("base_logits").get<std::string>());
  int refused = 0, loaded = 0;
  for (const json& c : malformed.at("cases")) {
    const std::filesystem::path path = dir / c.at("file").get<std::string>();
    const std::string expect = c.at("expect"), what = c.at("what");
    CAPTURE(path.filename().string());
    CAPTURE(what);
    if (expect == "load") {
      const auto ids = test::elements<std::int32_t>(base, "ids");
      CHECK(test::excess(trace_of(open(path), ids).logits, test::elements<float>(base, "logits"), {1e-5, 2e-5}) <= 1);
      ++loaded;
    } else if (expect == "reject") {
      const Error error = test::error_of([&] { open(path); });
      CHECK(test::names(error, (dir / "malformed").string()));
      const ErrorCode code = error.code();
      CHECK((code == ErrorCode::kBadFormat || code == ErrorCode::kUnsupported || code == ErrorCode::kNotFound));
      ++refused;
    }
  }
  CHECK(refused == 39);
  CHECK(loaded == 7);
}

TEST_CASE("the tiny model as a GGUF file computes what it did, as near as the type is") {
  const test::TempDir dir;
  const LoadedModel model = open(test::tiny_dir());
  const std::vector<TokenId> ids = model.prompt("RETURN VALUE\n       On success, zero is returned. On error, -1.");
  const std::vector<float> want = trace_of(model, ids).logits;
  const auto n_vocab = static_cast<std::size_t>(model.config().vocab_size);
  // F16 has more mantissa than bf16, so that only numbers below 2^-14 move, by at most 2^-25.
  for (const auto& [type, budget] :
       {std::pair{GgmlType::kF16, 1e-9}, {GgmlType::kQ8_0, 2e-4}, {GgmlType::kQ4_0, 0.03}}) {
    CAPTURE(name_of(type));
    write_gguf_of(dir / "m.gguf", model, type);
    const LoadedModel written = open(dir / "m.gguf");
    const std::vector<float> got = trace_of(written, ids).logits;
    const auto [mean, most] = divergence(want, got, n_vocab);
    MESSAGE(name_of(type), ": KL ", mean, ", at most ", most);
    CHECK(mean < budget);
    if (type == GgmlType::kF16) CHECK(test::excess(got, want, {2e-4, 2e-5}) <= 1);
    CHECK(written.config().eos_ids == model.config().eos_ids);
    CHECK(written.chat_template == model.chat_template);
    CHECK(written.chat_style().style == model.chat_style().style);
    for (const char* text :
         {"On success, zero", " two  spaces", "caf\xC3\xA9 \xF0\x9F\x99\x82", "", "\n\n", "a<s>b</s>"}) {
      CAPTURE(text);
      CHECK(written.prompt(text) == model.prompt(text));
      CHECK(written.prompt(text, SpecialTokens::kAll) == model.prompt(text, SpecialTokens::kAll));
    }
  }
}

TEST_CASE("a directory's tokenizer becomes the keys that another program's converter made of it") {
  const std::filesystem::path models = test::golden_dir() / "gguf/models";
  const test::TempDir dir;
  write_gguf_of(dir / "m.gguf", open(models / "S_hf"), GgmlType::kF16);
  const GgufFile got(dir / "m.gguf"), want(models / "S_f16.gguf");
  for (const GgufKey& key : want.keys()) {
    // The directory has no template, and another name.
    if (key.name == "tokenizer.chat_template" || key.name == "general.name") continue;
    CAPTURE(key.name);
    const GgufKey* const own = got.find_key(key.name);
    REQUIRE(own != nullptr);
    CHECK(own->type == key.type);
    CHECK(own->element == key.element);
    CHECK(std::equal(own->bytes.begin(), own->bytes.end(), key.bytes.begin(), key.bytes.end()));
  }
  const Tokenizer tokenizer = Tokenizer::load(dir / "m.gguf");
  const json cases = test::read_json(test::golden_dir() / "tokenizer/tokenizer_1/cases.json");
  for (const json& c : cases.at("encode")) {
    CHECK(tokenizer.encode(c.at("text").get<std::string>()) == c.at("ids").get<std::vector<TokenId>>());
  }
}

TEST_CASE("golden GGUF files that are written again compute the same logits, with the same keys") {
  const std::filesystem::path models = test::golden_dir() / "gguf/models";
  const test::TempDir dir;
  for (const auto& [name, type] : {std::pair{"S_f16.gguf", GgmlType::kF16}, {"G_q4_0.gguf", GgmlType::kQ4_0}}) {
    CAPTURE(name);
    const LoadedModel model = open(models / name);
    write_gguf_of(dir / "m.gguf", model, type);
    const std::vector<TokenId> ids = {1, 5, 9, 200, 7, 31, 77};
    CHECK(trace_of(open(dir / "m.gguf"), ids).logits == trace_of(model, ids).logits);
    const GgufFile got(dir / "m.gguf"), want(models / name);
    for (const GgufKey& key : want.keys()) {
      if (!key.name.starts_with("tokenizer.")) continue;
      CAPTURE(key.name);
      const GgufKey* const own = got.find_key(key.name);
      REQUIRE(own != nullptr);
      CHECK(std::equal(own->bytes.begin(), own->bytes.end(), key.bytes.begin(), key.bytes.end()));
    }
  }
}
