#include "mixtral/io/packed.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "mixtral/core/file.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/io/safetensors.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "mixtral/runtime/session.hpp"
#include "mixtral/text/vocabulary_files.hpp"
#include "support/compare.hpp"
#include "support/contexts.hpp"
#include "support/error_of.hpp"
#include "support/models.hpp"
#include "support/mutate.hpp"
#include "support/temp_dir.hpp"

namespace mixtral {
namespace {

using test::error_of;
using test::names;

struct Packing {
  explicit Packing(Executor& workers) : executor(workers) {}
  Packing() : Packing(serial) {}
  void write(const std::filesystem::path& path, const Model& model, const PackOptions& options) {
    pack_model(
        path, op, model.config, [&](const TensorSlot& s, const Shape<2>&) { return model.weights.at(s); }, options);
  }
  SerialExecutor serial;
  Executor& executor;
  KernelTable table = make_table(best_isa());
  Scratch scratch;
  OpContext op{table, executor, scratch};
};

PackOptions options_of(DType experts, DType attention, DType head) {
  return {.formats = {experts, attention, head}, .importance = {}, .files = {}, .progress = {}};
}
PackOptions all_in(DType dtype) { return options_of(dtype, dtype, dtype); }

const LoadedModel& tiny() {
  static const LoadedModel model(MIXTRAL_TINY_DIR);
  return model;
}

std::vector<float> logits_of(const Model& model) {
  const KernelTable table = make_table(best_isa());
  ThreadExecutor executor(2);
  const LoadedModel loaded(model, table, executor);
  Session session(loaded);
  std::vector<TokenId> ids;
  for (TokenId id = 1; id < 40; ++id) ids.push_back(id * 3 % static_cast<TokenId>(model.config.vocab_size));
  session.feed(ids);
  session.eval();
  return {session.logits().begin(), session.logits().end()};
}

std::string contents(const std::filesystem::path& path) { return read_file(path, Index{1} << 30); }

// The tiny model's small cousin as a packed file: some hundred KB.
struct SmallFile {
  SmallFile() {
    PackOptions options = options_of(DType::kP4, DType::kP8, DType::kBF16);
    options.files = {{"tokenizer.model", "no tokenizer"}};
    Packing().write(path, model.model, options);
  }
  test::RandomModel model{test::small_config()};
  test::TempDir dir;
  std::filesystem::path path = dir / "small.mixtral";
};

}  // namespace

TEST_CASE("a packed file holds what was packed, in every format, and its tokenizer") {
  test::TempDir dir;
  for (const DType dtype : {DType::kBF16, DType::kP8, DType::kP4}) {
    PackOptions options = all_in(dtype);
    options.files = read_tokenizer_files(MIXTRAL_TINY_DIR);
    Packing packing;
    packing.write(dir / "m", tiny().model(), options);
    for (const bool resident : {false, true}) {
      const LoadedModel opened(dir / "m", {.resident = resident});
      CHECK(opened.config().dim == tiny().config().dim);
      CHECK(opened.config().eos_ids == tiny().config().eos_ids);
      CHECK(opened.config().rope_theta == tiny().config().rope_theta);
      CHECK(opened.require_tokenizer().encode("On success, zero") ==
            tiny().require_tokenizer().encode("On success, zero"));
      CHECK(Tokenizer::load(dir / "m").encode("On success, zero") ==
            tiny().require_tokenizer().encode("On success, zero"));
      const Checkpoint memory = pack_in_memory(
          packing.op, tiny().config(),
          [&](const TensorSlot& s, const Shape<2>&) { return tiny().model().weights.at(s); }, all_in(dtype));
      const auto logits = logits_of(opened.model());
      CHECK(logits == logits_of(memory.model));
      if (dtype == DType::kBF16) CHECK(logits == logits_of(tiny().model()));
      if (dtype != DType::kBF16) CHECK(logits != logits_of(tiny().model()));
      CHECK(opened.model().weights.layers[0].experts[3].w1.dtype == dtype);
      CHECK(opened.model().weights.layers[0].router.dtype == DType::kBF16);
      CHECK(opened.model().weights.embedding.dtype == DType::kBF16);
    }
  }
}

TEST_CASE("every kind of matrix has the format that was asked for, every model of any shape and type survives") {
  test::TempDir dir;
  ModelConfig config = test::small_config();
  config.rope_pairing = RopePairing::kInterleaved;
  config.sliding_window = 33;
  config.bos_id = -1;
  for (const bool tied : {false, true}) {
    config.tied_embeddings = tied;
    const test::RandomModel model(config);
    Packing().write(dir / "m", model.model, options_of(DType::kP4, DType::kP8, DType::kBF16));
    const Checkpoint loaded = load_packed(dir / "m");
    CHECK(loaded.model.config.rope_pairing == RopePairing::kInterleaved);
    CHECK(loaded.model.config.sliding_window == 33);
    CHECK(loaded.model.config.bos_id == -1);
    CHECK(loaded.model.config.tied_embeddings == tied);
    for_each_tensor(config, [&](const TensorSlot& slot, const Shape<2>&) {
      using enum TensorKind;
      const DType got = loaded.model.weights.at(slot).dtype, stored = model.model.weights.at(slot).dtype;
      switch (slot.kind) {
        case kWq:
        case kWk:
        case kWv:
        case kWo: CHECK(got == DType::kP8); break;
        case kW1:
        case kW2:
        case kW3: CHECK(got == DType::kP4); break;
        case kHead: CHECK(got == DType::kBF16); break;
        default: CHECK(got == stored);  // norms, router, embedding: as they are
      }
    });
    const test::PackedModel direct(model.model, DType::kP4, DType::kP8);
    const auto& a = loaded.model.weights.layers[1].experts[2];
    const auto& b = direct.model.weights.layers[1].experts[2];
    CHECK(std::memcmp(a.w2.data, b.w2.data, static_cast<std::size_t>(a.w2.bytes())) == 0);
    CHECK(std::memcmp(a.w1.data, b.w1.data, static_cast<std::size_t>(a.w1.storage_bytes())) == 0);
  }
}

TEST_CASE("scaled RoPE is in the packed file, and nothing of it where there is none") {
  const SmallFile plain;
  CHECK(contents(plain.path).find("rope_scaling") == std::string::npos);
  const RopeScaling scalings[] = {{.kind = RopeScaling::Kind::kLinear, .factor = 2.5f, .attention_factor = 0.7f},
                                  {.kind = RopeScaling::Kind::kYarn,
                                   .factor = 4,
                                   .attention_factor = 1.1386294f,
                                   .original_max_positions = 64,
                                   .beta_fast = 8,
                                   .beta_slow = 0.1f,
                                   .truncate = false}};
  for (const RopeScaling& scaling : scalings) {
    ModelConfig config = test::small_config();
    config.rope_scaling = scaling;
    const test::RandomModel model(config);
    test::TempDir dir;
    Packing().write(dir / "m", model.model, all_in(DType::kBF16));
    const Checkpoint loaded = load_packed(dir / "m");
    CHECK(loaded.model.config.rope_scaling == scaling);
    const Checkpoint memory = [&] {
      Packing packing;
      return pack_in_memory(
          packing.op, config, [&](const TensorSlot& s, const Shape<2>&) { return model.model.weights.at(s); },
          all_in(DType::kBF16));
    }();
    CHECK(logits_of(loaded.model) == logits_of(memory.model));
    Model unscaled = loaded.model;
    unscaled.config.rope_scaling = {};
    CHECK(logits_of(loaded.model) != logits_of(unscaled));
  }
}

TEST_CASE("the container is safetensors: byte tensors in multiples of 4096, data on a page, an expert in one piece") {
  const SmallFile small;
  const SafetensorsFile file(small.path);
  CHECK(file.entries().size() == 1 + 2 * (7 + 8) + 2 + 1);
  const auto* begin = reinterpret_cast<const std::byte*>(UINTPTR_MAX);
  for (const SafetensorsEntry& entry : file.entries()) {
    CHECK(entry.dtype == DType::kU8);
    CHECK(entry.data.size() % 4096 == 0);
    CHECK(reinterpret_cast<std::uintptr_t>(entry.data.data()) % 4096 == 0);
    begin = std::min(begin, entry.data.data());
  }
  CHECK(file.find("layers.1.experts.7") != nullptr);
  CHECK(file.at("embedding").data.data() == begin);  // in the order of the forward pass
  CHECK(load_packed(small.path).files.at(0).contents == "no tokenizer");
}

TEST_CASE("the bytes do not depend on the number of workers") {
  const SmallFile small;
  const std::string want = contents(small.path);
  test::for_each_executor([&](Executor& executor) {
    test::TempDir dir;
    PackOptions options = options_of(DType::kP4, DType::kP8, DType::kBF16);
    options.files = {{"tokenizer.model", "no tokenizer"}};
    Packing(executor).write(dir / "m", small.model.model, options);
    CHECK(contents(dir / "m") == want);
  });
}

TEST_CASE("a mapped model gives its pages back as it is packed, and is whole afterwards") {
  test::TempDir dir;
  Packing packing;
  packing.write(dir / "direct", tiny().model(), all_in(DType::kP8));
  const Checkpoint mapped = load_checkpoint(MIXTRAL_TINY_DIR),
                   owned = load_checkpoint(MIXTRAL_TINY_DIR, {.resident = true});
  CHECK(mapped.mapped);
  CHECK_FALSE(owned.mapped);
  for (const Checkpoint* model : {&mapped, &owned}) {
    CheckpointWeights source(*model);
    pack_model(dir / "m", packing.op, model->model.config, source, all_in(DType::kP8));
    CHECK(contents(dir / "m") == contents(dir / "direct"));
    CHECK(logits_of(model->model) == logits_of(tiny().model()));
  }
}

TEST_CASE("a flipped bit is found, by layer and expert") {
  const SmallFile small;
  ThreadExecutor executor(2);
  CHECK(verify_packed(small.path, executor).empty());
  std::string bytes = contents(small.path);
  const SafetensorsFile file(small.path);
  const auto header =
      static_cast<std::size_t>(file.at("embedding").data.data() - file.at("layers.1.experts.5").data.data());
  const std::size_t data_begin = 8 + static_cast<std::size_t>(static_cast<unsigned char>(bytes[0])) +
                                 256 * static_cast<std::size_t>(static_cast<unsigned char>(bytes[1])) +
                                 65536 * static_cast<std::size_t>(static_cast<unsigned char>(bytes[2]));
  CHECK(data_begin % 4096 == 0);
  bytes[data_begin - header + 77] ^= 4;
  test::write_text(small.dir / "flipped", bytes);
  CHECK(verify_packed(small.dir / "flipped", executor) == std::vector<std::string>{"layers.1.experts.5"});
  logits_of(load_packed(small.dir / "flipped").model);  // other numbers, no crash
}

TEST_CASE("a changed number in the header is found, though every tensor is whole") {
  const SmallFile small;
  SerialExecutor executor;
  std::string bytes = contents(small.path);
  const std::size_t at = bytes.find("\\\"rope_theta\\\":1");
  REQUIRE(at != bytes.npos);
  bytes[at + 15] = '2';
  test::write_text(small.dir / "changed", bytes);
  CHECK(load_packed(small.dir / "changed").model.config.rope_theta ==
        2 * load_packed(small.path).model.config.rope_theta);
  CHECK(verify_packed(small.dir / "changed", executor) == std::vector<std::string>{"header"});
}

TEST_CASE("importance reaches the quantiser, progress the caller") {
  const SmallFile small;
  test::TempDir dir;
  PackOptions options = all_in(DType::kP4);
  std::vector<float> importance(static_cast<std::size_t>(small.model.model.config.hidden_dim), 0);
  importance[3] = 1;
  options.importance = [&](const TensorSlot& slot) {
    return slot.kind == TensorKind::kW2 ? importance : std::vector<float>{};
  };
  Index last = 0, total = 0;
  options.progress = [&](Index done, Index all) {
    CHECK((done > last || last == all));
    last = done;
    total = all;
  };
  Packing().write(dir / "weighted", small.model.model, options);
  CHECK(last == total);
  Packing().write(dir / "plain", small.model.model, all_in(DType::kP4));
  const Checkpoint a = load_packed(dir / "weighted"), b = load_packed(dir / "plain");
  const auto& wa = a.model.weights.layers[0].experts[0];
  const auto& wb = b.model.weights.layers[0].experts[0];
  CHECK(std::memcmp(wa.w1.data, wb.w1.data, static_cast<std::size_t>(wa.w1.storage_bytes())) == 0);
  CHECK(std::memcmp(wa.w2.data, wb.w2.data, static_cast<std::size_t>(wa.w2.bytes())) != 0);
}

TEST_CASE("progress ends the packing at any call, the last one included, and leaves nothing") {
  const SmallFile small;
  test::TempDir dir;
  PackOptions options = all_in(DType::kP4);
  int calls = 0, end = 0;
  options.progress = [&](Index, Index) {
    CHECK(!std::filesystem::exists(dir / "f"));
    require(++calls != end, ErrorCode::kCancelled, "enough");
  };
  Packing().write(dir / "f", small.model.model, options);
  std::filesystem::remove(dir / "f");
  for (const int last : {1, calls / 2, calls}) {
    end = last;
    calls = 0;
    CHECK(error_of([&] { Packing().write(dir / "f", small.model.model, options); }).code() == ErrorCode::kCancelled);
    CHECK(std::filesystem::is_empty(dir.path()));
  }
}

TEST_CASE("what cannot be packed is refused by name, and leaves nothing") {
  const SmallFile small;
  test::TempDir dir;
  const Checkpoint packed = load_packed(small.path);
  CHECK(names(error_of([&] { Packing().write(dir / "m", packed.model, all_in(DType::kP4)); }), "layers.0.wq"));
  CHECK(names(error_of([&] { Packing().write(dir / "m", small.model.model, all_in(DType::kF16)); }), "F16"));
  CHECK(names(error_of([&] { Packing().write(dir / "no/m", small.model.model, all_in(DType::kP4)); }), "no/m"));
  for (const char* name : {"layers.1.experts.5", "embedding", "mixtral.config", "__metadata__", "\xff"}) {
    PackOptions options = all_in(DType::kP4);
    options.files = {{name, "no tokenizer"}};
    const Error error = error_of([&] { Packing().write(dir / "m", small.model.model, options); });
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(names(error, name == std::string("\xff") ? "UTF-8" : name));
  }
  CHECK(std::filesystem::is_empty(dir.path()));
}

TEST_CASE("a router with a NaN is neither packed nor loaded") {
  const SmallFile small;
  std::string bytes = contents(small.path);
  const SafetensorsFile file(std::as_bytes(std::span(bytes)), "file");
  const std::byte* gate = file.at("layers.1.gate").data.data();
  const Index row_bytes = small.model.model.weights.layers[1].router.row_bytes;
  std::fill_n(bytes.begin() + (reinterpret_cast<const char*>(gate) - bytes.data()) + 3 * row_bytes, 4, '\xff');
  test::write_text(small.dir / "nan", bytes);
  Error error = error_of([&] { load_packed(small.dir / "nan"); });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, "nan: layers.1.gate: expert 3, element 0 is nan, expected finite numbers"));

  const test::RandomModel other(test::small_config());
  std::fill_n(const_cast<std::byte*>(other.model.weights.layers[0].ffn_norm.data), 4, std::byte{0xff});
  error = error_of([&] { Packing().write(small.dir / "new", other.model, all_in(DType::kP4)); });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, "layers.0.ffn_norm: element 0 is nan"));
}

TEST_CASE("files that break the format are refused by name") {
  const SmallFile small;
  const SafetensorsFile file(small.path);
  const auto refused = [&](auto change, const std::string& text) {
    std::vector<SafetensorsEntry> entries = file.entries();
    SafetensorsMetadata metadata = file.metadata();
    change(entries, metadata);
    write_safetensors(small.dir / "bad", entries, metadata);
    const Error error = error_of([&] { load_packed(small.dir / "bad"); });
    CHECK(names(error, text));
    CHECK(names(error, "bad"));
  };
  const auto set = [](SafetensorsMetadata& metadata, std::string_view key, std::string value) {
    for (auto& [name, text] : metadata) {
      if (name == key) text = std::move(value);
    }
  };
  const auto drop = [](auto& list, auto is) { list.erase(std::find_if(list.begin(), list.end(), is)); };
  refused([&](auto&, auto& m) { m.clear(); }, "no packed file");
  refused([&](auto&, auto& m) { set(m, "mixtral.format", "2"); }, "\"2\"");
  refused([&](auto&, auto& m) { set(m, "mixtral.config", "{}"); }, "dim");
  refused([&](auto&, auto& m) { set(m, "mixtral.config", "nonsense"); }, "mixtral.config");
  refused([&](auto& e, auto&) { drop(e, [](const auto& x) { return x.name == "layers.1.wo"; }); }, "layers.1.wo");
  refused([&](auto&, auto& m) { set(m, "layers.0.experts.1", "P4"); }, "layers.0.experts.1");
  refused([&](auto&, auto& m) { set(m, "layers.0.experts.1", "P9 xxh3:0123456789abcdef"); }, "layers.0.experts.1");
  refused([&](auto&, auto& m) { set(m, "layers.0.experts.1", "P8 xxh3:0123456789abcdef"); }, "layers.0.experts.1");
  refused([&](auto&, auto& m) { set(m, "layers.0.gate", "P4 xxh3:0123456789abcdef"); }, "layers.0.gate");
  refused([&](auto&, auto& m) { set(m, "tokenizer.model", "file 4097 xxh3:0123456789abcdef"); }, "tokenizer.model");
  refused([&](auto&, auto& m) { set(m, "tokenizer.model", "file 12 xxh3:0123456789abcdef"); }, "checksum");
  refused([&](auto& e, auto&) { e.push_back({"surplus", DType::kU8, {0}, {}}); }, "surplus");
  refused(
      [&](auto& e, auto& m) {
        e.push_back({"surplus", DType::kU8, {0}, {}});
        m.emplace_back("surplus", "BF16 xxh3:0123456789abcdef");
      },
      "place for");
  const auto scaled = [&](const std::string& scaling, const std::string& text) {
    refused(
        [&](auto&, auto& m) {
          for (auto& [name, json] : m) {
            if (name == "mixtral.config") json.insert(1, "\"rope_scaling\":" + scaling + ",");
          }
        },
        text);
  };
  scaled(R"([])", "rope_scaling: an array, expected an object");
  scaled(R"({"type":"ntk"})", "rope_scaling: type is \"ntk\", expected linear or yarn");
  scaled(R"({"type":"linear","factor":0})", "rope_scaling: factor is 0, expected");
  scaled(R"({"type":"linear","factor":2,"attention_factor":1,"low_freq_factor":1})",
         "rope_scaling: \"low_freq_factor\" is 1, which is not supported");
  scaled(R"({"type":"yarn","factor":2,"attention_factor":1})", "original_max_positions is missing");
  scaled(R"({"type":"yarn","factor":2,"attention_factor":1,"original_max_positions":64,"beta_fast":1,"beta_slow":2})",
         "rope_scaling: beta_fast is 1, beta_slow 2");
  // A configuration that claims more than the file can hold is refused before anything is made for it.
  std::string config;
  for (const auto& [key, value] : file.metadata()) {
    if (key == "mixtral.config") config = value;
  }
  const std::size_t at = config.find("\"n_layers\":2");
  REQUIRE(at != config.npos);
  refused([&](auto&, auto& m) { set(m, "mixtral.config", config.replace(at, 12, "\"n_layers\":65536")); },
          "parameters");
}

TEST_CASE("a file without a head says so, and opens where none is asked for") {
  const SmallFile small;
  const Checkpoint whole = load_packed(small.path), left_out = load_packed(small.path, Head::kNone);
  ModelConfig config = small.model.model.config;
  config.has_head = false;
  Packing packing;
  PackOptions options = options_of(DType::kP4, DType::kP8, DType::kBF16);
  options.files = {{"tokenizer.model", "no tokenizer"}};
  pack_model(
      small.dir / "headless", packing.op, config,
      [&](const TensorSlot& s, const Shape<2>&) {
        REQUIRE(s.kind != TensorKind::kHead);
        return small.model.model.weights.at(s);
      },
      options);
  const Error error = error_of([&] { load_packed(small.dir / "headless"); });
  CHECK(error.code() == ErrorCode::kNotFound);
  CHECK(names(error, "headless: was packed without a head: without one it opens for embeddings alone"));
  const Checkpoint headless = load_checkpoint(small.dir / "headless", {.head = Head::kNone});
  for (const Checkpoint* got : {&left_out, &headless}) {
    CHECK_FALSE(got->model.config.has_head);
    CHECK_NOTHROW(validate(got->model.weights, got->model.config));
    CHECK(weight_bytes(got->model) == weight_bytes(whole.model) - whole.model.weights.head.bytes());
    CHECK(got->tensors.size() == whole.tensors.size() - 1);
    for_each_tensor(got->model.config, [&](const TensorSlot& slot, const Shape<2>&) {
      const MatrixView &a = got->model.weights.at(slot), &b = whole.model.weights.at(slot);
      CHECK(std::memcmp(a.data, b.data, static_cast<std::size_t>(a.storage_bytes())) == 0);
    });
  }
  CHECK(read_embedded_files(small.dir / "headless").at(0).contents == "no tokenizer");
  CHECK(read_vocab_size(small.dir / "headless") == config.vocab_size);
  SerialExecutor serial;
  CHECK(verify_packed(small.dir / "headless", serial).empty());
  // Versions before 1.2 read files with a head, and refuse those without by the name of this field.
  CHECK(contents(small.path).find("has_head") == std::string::npos);
  CHECK(contents(small.dir / "headless").find("has_head") != std::string::npos);
}

TEST_CASE("a file whose head got lost is refused by its name, and opens where none is asked for") {
  const SmallFile small;
  const SafetensorsFile file(small.path);
  std::vector<SafetensorsEntry> entries = file.entries();
  std::erase_if(entries, [](const SafetensorsEntry& e) { return e.name == "head"; });
  REQUIRE(entries.size() == file.entries().size() - 1);
  write_safetensors(small.dir / "lost", entries, file.metadata());
  const Error error = error_of([&] { load_packed(small.dir / "lost"); });
  CHECK(error.code() == ErrorCode::kBadFormat);
  CHECK(names(error, "\"head\" is missing: without one it opens for embeddings alone"));
  CHECK_FALSE(load_packed(small.dir / "lost", Head::kNone).model.config.has_head);
}

TEST_CASE("mutated files are refused or run, nothing else") {
  const SmallFile small;
  const std::string good = contents(small.path);
  test::Random random(17);
  Index refused = 0, loaded = 0;
  SerialExecutor serial;
  const std::size_t header = 8 + good.find('\0', 8) % good.size();
  for (int i = 0; i < 600; ++i) {
    std::string bytes = good;
    const int changes = 1 + static_cast<int>(random.index(0, 3));
    for (int c = 0; c < changes; ++c) {
      // Mostly in the header, where the meaning is.
      const std::size_t most = random.chance(0.9) ? std::min<std::size_t>(header, 12000) : bytes.size();
      const auto at = static_cast<std::size_t>(random.index(0, static_cast<Index>(most) - 1));
      switch (random.index(0, 3)) {
        case 0: bytes[at] = static_cast<char>(random.index(0, 255)); break;
        case 1: bytes[at] = "0123456789{}[],:\""[random.index(0, 16)]; break;
        case 2: bytes.erase(at, static_cast<std::size_t>(random.index(1, 9))); break;
        default: bytes.insert(at, bytes.substr(at, static_cast<std::size_t>(random.index(1, 9))));
      }
    }
    test::write_text(small.dir / "mutated", bytes);
    try {
      const Checkpoint model = load_packed(small.dir / "mutated");
      verify_packed(small.dir / "mutated", serial);
      ++loaded;
    } catch (const Error&) {
      ++refused;
    }
  }
  MESSAGE(refused, " refused, ", loaded, " loaded");
  CHECK(refused > 300);
  CHECK(refused + loaded == 600);
}

}  // namespace mixtral
