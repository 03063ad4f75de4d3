// mixtral.h: versions, opening a model, what is known about it.
#include <atomic>
#include <cstring>
#include <thread>

#include "mixtral/core/utf8.hpp"
#include "mixtral/io/huggingface.hpp"
#include "mixtral/io/packed.hpp"
#include "mixtral/model/kv_cache.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "mixtral/text/vocabulary_files.hpp"
#include "support/capi.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using namespace mixtral::test;

TEST_CASE("version and status texts") {
  CHECK(mixtral_version() == MIXTRAL_VERSION);
  CHECK(mixtral_version_text() == str(MIXTRAL_VERSION_MAJOR, ".", MIXTRAL_VERSION_MINOR, ".", MIXTRAL_VERSION_PATCH));
  CHECK(std::string(mixtral_status_text(MIXTRAL_OK)) == "ok");
  CHECK(std::string(mixtral_status_text(MIXTRAL_BUFFER_TOO_SMALL)) == "buffer too small");
  CHECK(std::string(mixtral_status_text(12)) == "unknown status");
  CHECK(std::string(mixtral_status_text(-1)) == "unknown status");
}

TEST_CASE("a GGUF file is a model with its tokenizer, imported as params say") {
  const std::filesystem::path path = golden_dir() / "gguf/models/S_f16.gguf",
                              quantised = golden_dir() / "gguf/models/K_q4_k_m.gguf";
  const Ctx ctx = open_ctx(params(), path);
  CHECK(tokenize(ctx.get(), "Hello world").front() == 1);
  mixtral_params p = params();
  mixtral_info packed{}, floats{};
  packed.struct_size = floats.struct_size = sizeof packed;
  ok(mixtral_ctx_info(open_ctx(p, quantised).get(), &packed));
  p.import_weights = MIXTRAL_IMPORT_FLOAT;
  ok(mixtral_ctx_info(open_ctx(p, quantised).get(), &floats));
  CHECK(floats.weight_bytes > 2 * packed.weight_bytes);
  p.import_weights = 2;
  mixtral_ctx* made = nullptr;
  const std::string name = path.string();
  CHECK(refused(mixtral_ctx_create(name.data(), name.size(), &p, &made), MIXTRAL_INVALID_ARGUMENT) ==
        "params: import_weights is 2, expected MIXTRAL_IMPORT_*");
}

TEST_CASE("each thread has its own last error, which a success leaves as it is") {
  CHECK(refused(mixtral_ctx_create(nullptr, 3, nullptr, nullptr), MIXTRAL_INVALID_ARGUMENT) ==
        "path is NULL but its length is 3");
  std::string elsewhere = "unset";
  std::thread([&] { elsewhere = mixtral_last_error(); }).join();
  CHECK(elsewhere.empty());
  mixtral_params p;
  ok(mixtral_params_init(&p, sizeof p));
  CHECK(std::string(mixtral_last_error()) == "path is NULL but its length is 3");
}

TEST_CASE("a packed file is a model with its tokenizer by its path alone") {
  const TempDir dir;
  const LoadedModel model(tiny_dir());
  const KernelTable table = make_table(best_isa());
  SerialExecutor executor;
  Scratch scratch;
  CheckpointWeights source(model.checkpoint);
  const PackOptions options{.formats = {DType::kBF16, DType::kBF16, DType::kBF16},
                            .importance = {},
                            .files = read_tokenizer_files(tiny_dir()),
                            .progress = {}};
  pack_model(dir / "model", {table, executor, scratch}, model.config(), source, options);
  const Ctx ctx = open_ctx(params(), dir / "model");
  const std::vector<std::int32_t> ids = tokenize(ctx.get(), "RETURN VALUE");
  CHECK(ids == tokenize(tiny_ctx(), "RETURN VALUE"));
  const CSession packed = make_session(ctx.get()), original = make_session(tiny_ctx());
  for (mixtral_session* session : {packed.get(), original.get()}) {
    feed(session, ids);
    ok(mixtral_session_eval(session));
  }
  const std::size_t last = ids.size() - 1;
  CHECK(logits_of(packed.get(), last) == logits_of(original.get(), last));
}

TEST_CASE("an error text that is too long loses the middle of its path, keeps the reason, and cuts no character") {
  const auto text_of = [](const std::string& path) {
    mixtral_ctx* ctx = nullptr;
    CHECK(mixtral_ctx_create(path.data(), path.size(), nullptr, &ctx) != MIXTRAL_OK);
    CHECK(ctx == nullptr);
    return std::string(mixtral_last_error());
  };
  std::string rest;
  for (int i = 0; i < 700; ++i) rest += "x\xE2\x82\xAC";
  for (std::size_t shift = 0; shift < 4; ++shift) {
    const std::string path = str("/", std::string(shift, 'y'), rest), text = text_of(path);
    CAPTURE(text);
    CHECK(is_utf8(text));
    CHECK(text.size() <= 1023);
    CHECK(text.size() >= 950);
    CHECK(text.starts_with(path.substr(0, 200)));
    CHECK(text.find("...") != text.npos);
    CHECK(text.ends_with(": cannot open: File name too long"));
  }
  // Bytes that are no text at all.
  const std::string text = text_of(str("/", std::string(3000, '\x80')));
  CHECK(text.size() >= 950);
  CHECK(text.ends_with(": cannot open: File name too long"));
  CHECK(text_of("/none") == "/none: no such file or directory");
}

TEST_CASE("a ctx describes its model") {
  const Checkpoint model = load_huggingface(tiny_dir());
  mixtral_info info{};
  info.struct_size = sizeof info;
  ok(mixtral_ctx_info(tiny_ctx(), &info));
  CHECK(info.struct_size == sizeof info);
  CHECK(info.isa == static_cast<std::int32_t>(best_isa()));
  CHECK(info.executor == MIXTRAL_EXECUTOR_THREADS);
  CHECK(info.n_threads == 2);
  CHECK(info.dim == model.model.config.dim);
  CHECK(info.n_layers == model.model.config.n_layers);
  CHECK(info.n_experts == model.model.config.n_experts);
  CHECK(info.vocab_size == model.model.config.vocab_size);
  CHECK(info.max_positions == model.model.config.max_positions);
  CHECK(info.n_parameters == count_parameters(model.model.config).total);
  CHECK(info.n_active == count_parameters(model.model.config).active);
  CHECK(info.weight_bytes == std::int64_t{2} * info.n_parameters);
  CHECK(info.kv_bytes_per_page == KvCache(kv_layout(model.model.config, DType::kBF16), 1, 1).page_bytes());
  CHECK(info.bos_id == 1);
  CHECK(info.eos_id == model.model.config.eos_ids.front());
  CHECK(info.add_bos == 1);
  CHECK(info.chat_style == MIXTRAL_CHAT_V1);
  CHECK(mixtral_token_is_eos(tiny_ctx(), info.eos_id) == 1);
  CHECK(mixtral_token_is_eos(tiny_ctx(), info.bos_id) == 0);
  CHECK(mixtral_token_is_eos(nullptr, 2) == 0);
}

TEST_CASE("every cap of the instruction set gives the same logits") {
  std::vector<float> want;
  for (const std::int32_t isa : {MIXTRAL_ISA_REFERENCE, MIXTRAL_ISA_AVX2, MIXTRAL_ISA_AVX512, MIXTRAL_ISA_AVX512_VNNI,
                                 MIXTRAL_ISA_AMX_INT8, MIXTRAL_ISA_AVX2_VNNI, MIXTRAL_ISA_NEON, MIXTRAL_ISA_BEST}) {
    mixtral_params p = params();
    p.isa = isa;
    const Ctx ctx = open_ctx(p);
    mixtral_info info{};
    info.struct_size = sizeof info;
    ok(mixtral_ctx_info(ctx.get(), &info));
    if (isa != MIXTRAL_ISA_BEST) CHECK(info.isa <= isa);
    const CSession session = make_session(ctx.get());
    feed(session.get(), {1, 50, 60, 70});
    ok(mixtral_session_eval(session.get()));
    const auto got = logits_of(session.get(), 3);
    if (want.empty()) want = got;
    CHECK(got == want);
  }
}

TEST_CASE("bf16 products change the logits a little, on request; a program of the first version gets float32") {
  const auto last_logits = [](const mixtral_params& p) {
    const Ctx ctx = open_ctx(p);
    const CSession session = make_session(ctx.get());
    feed(session.get(), {1, 50, 60, 70});
    ok(mixtral_session_eval(session.get()));
    return logits_of(session.get(), 3);
  };
  mixtral_params p = params();
  CHECK(p.bf16_products == MIXTRAL_BF16_FLOAT32);
  const auto exact = last_logits(p);
  p.bf16_products = MIXTRAL_BF16_ROUNDED;
  const auto rounded = last_logits(p);
  CHECK(rounded != exact);
  for (std::size_t i = 0; i < exact.size(); ++i) CHECK(std::abs(rounded[i] - exact[i]) < 0.3f);
  p.struct_size = offsetof(mixtral_params, bf16_products);  // what stands behind is not read
  CHECK(last_logits(p) == exact);
}

TEST_CASE("options of a ctx that make no sense are refused by name") {
  const std::string dir = tiny_dir().string();
  const auto text = [&](auto change) {
    mixtral_params p = params();
    change(p);
    mixtral_ctx* ctx = nullptr;
    const std::string why = refused(mixtral_ctx_create(dir.data(), dir.size(), &p, &ctx), MIXTRAL_INVALID_ARGUMENT);
    CHECK(ctx == nullptr);
    return why;
  };
  CHECK(text([](auto& p) { p.isa = 7; }) == "params: isa is 7, expected -1 to 6");
  CHECK(text([](auto& p) { p.isa = -2; }) == "params: isa is -2, expected -1 to 6");
  CHECK(text([](auto& p) { p.executor = 3; }) == "params: executor is 3, expected 0 to 2");
  CHECK(text([](auto& p) { p.n_threads = -1; }) == "params: n_threads is -1, expected 0 to 1024");
  CHECK(text([](auto& p) { p.executor = MIXTRAL_EXECUTOR_HOST; }) ==
        "params: run must be given for MIXTRAL_EXECUTOR_HOST and for nothing else");
  CHECK(text([](auto& p) { p.bf16_products = 2; }) == "params: bf16_products is 2, expected MIXTRAL_BF16_*");
  CHECK(text([](auto& p) { p.reserved = 1; }) == "params: reserved is 1, expected 0");
  CHECK(text([](auto& p) { p.head = 2; }) == "params: head is 2, expected MIXTRAL_HEAD_*");
  CHECK(text([](auto& p) { p.head = -1; }) == "params: head is -1, expected MIXTRAL_HEAD_*");
  CHECK(text([](auto& p) { p.struct_size = 8; }) == "params: struct_size is 8, expected 48 to 1024");
  mixtral_ctx* ctx = nullptr;
  CHECK(refused(mixtral_ctx_create("a\0b", 3, nullptr, &ctx), MIXTRAL_INVALID_ARGUMENT) ==
        "path is empty or has a zero byte");
  CHECK(refused(mixtral_ctx_create(dir.data(), dir.size(), nullptr, nullptr), MIXTRAL_INVALID_ARGUMENT) ==
        "the place for the ctx is NULL");
  const std::string nowhere = dir + "/nowhere";
  CHECK(refused(mixtral_ctx_create(nowhere.data(), nowhere.size(), nullptr, &ctx), MIXTRAL_NOT_FOUND).find(nowhere) ==
        0);
}

TEST_CASE("option structs of a later version are taken if what is not known is zero") {
  struct {
    mixtral_sampler_params now;
    std::uint64_t later;
  } p{};
  ok(mixtral_sampler_params_init(&p.now, sizeof p));
  CHECK(p.now.struct_size == sizeof p);
  CHECK(p.now.temperature == 1);
  const CSession session = make_session(tiny_ctx());
  ok(mixtral_session_set_sampler(session.get(), &p.now));
  p.later = std::uint64_t{1} << 40;
  CHECK(refused(mixtral_session_set_sampler(session.get(), &p.now), MIXTRAL_INVALID_ARGUMENT) ==
        str("params: byte 37 is not zero: an option that this version (", mixtral_version_text(), ") does not know"));

  struct {
    mixtral_info now;
    std::uint64_t later;
  } info{};
  info.later = 7;
  info.now.struct_size = sizeof info;
  ok(mixtral_ctx_info(tiny_ctx(), &info.now));
  CHECK(info.now.struct_size == sizeof info);
  CHECK(info.later == 0);
  info.now.struct_size = 1u << 30;  // garbage: nothing behind the struct is touched
  CHECK(mixtral_ctx_info(tiny_ctx(), &info.now) == MIXTRAL_INVALID_ARGUMENT);
}

TEST_CASE("an init that fails writes nothing") {
  mixtral_params p;
  p.struct_size = 12345;
  CHECK(mixtral_params_init(&p, 8) == MIXTRAL_INVALID_ARGUMENT);
  CHECK(mixtral_params_init(&p, std::size_t{1} << 40) == MIXTRAL_INVALID_ARGUMENT);
  CHECK(p.struct_size == 12345);
}

TEST_CASE("one kind of handle given for another is noticed") {
  const CSession session = make_session(tiny_ctx());
  auto* as_session = reinterpret_cast<mixtral_session*>(tiny_ctx());
  auto* as_ctx = reinterpret_cast<mixtral_ctx*>(session.get());
  CHECK(refused(mixtral_session_eval(as_session), MIXTRAL_INVALID_ARGUMENT) == "session is not a mixtral_session");
  CHECK(refused(mixtral_ctx_reset_routing_counts(as_ctx), MIXTRAL_INVALID_ARGUMENT) == "ctx is not a mixtral_ctx");
  CHECK(mixtral_session_cancel(as_session) == MIXTRAL_INVALID_ARGUMENT);
  mixtral_session_destroy(as_session);
  mixtral_ctx_destroy(as_ctx);
  ok(mixtral_session_eval(session.get()));
}

TEST_CASE("sessions live on after their ctx") {
  Ctx ctx = open_ctx(params());
  const CSession session = make_session(ctx.get());
  ctx.reset();
  feed(session.get(), {1, 2, 3});
  ok(mixtral_session_eval(session.get()));
  CHECK(logits_of(session.get(), 2).size() == 4096);
}

TEST_CASE("the log callback hears what was opened") {
  std::vector<std::string> lines;
  mixtral_params p = params();
  p.log = [](void* user, std::int32_t level, const char* text, std::size_t size) {
    static_cast<std::vector<std::string>*>(user)->push_back(std::to_string(level) + std::string(text, size));
  };
  p.log_user = &lines;
  open_ctx(p);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].find("5 layers, 8 experts, 2 per token") != std::string::npos);
  CHECK(lines[1].find("conversations are in style v1: chat_template has [INST]") != std::string::npos);
  CHECK(lines[1][0] == '0');
  open_ctx(p, golden_dir() / "models/A");
  REQUIRE(lines.size() == 4);
  CHECK(lines[3].ends_with("no tokenizer, token ids only"));
  CHECK(lines[3][0] == '1');
}

TEST_CASE("a model without a tokenizer works with ids and says what it lacks") {
  const Ctx ctx = open_ctx(params(), golden_dir() / "models/A");
  std::size_t n = 0;
  CHECK(refused(mixtral_tokenize(ctx.get(), "x", 1, 0, nullptr, 0, &n), MIXTRAL_NOT_FOUND).find("no tokenizer") !=
        std::string::npos);
  const CSession session = make_session(ctx.get());
  feed(session.get(), {1, 2, 3});
  mixtral_generate_params g;
  ok(mixtral_generate_params_init(&g, sizeof g));
  g.max_tokens = 3;
  ok(mixtral_session_generate(session.get(), &g, nullptr));
  CHECK(tokens_of(session.get()).size() == 6);
}

TEST_CASE("a ctx without a head gives the hidden rows of the whole model, and refuses what wants logits") {
  mixtral_params p = params();
  p.head = MIXTRAL_HEAD_NONE;
  const Ctx headless = open_ctx(p);
  const std::vector<std::int32_t> ids = tokenize(headless.get(), "RETURN VALUE");
  mixtral_info info{}, whole{};
  info.struct_size = whole.struct_size = sizeof info;
  ok(mixtral_ctx_info(headless.get(), &info));
  ok(mixtral_ctx_info(tiny_ctx(), &whole));
  CHECK(info.n_parameters == whole.n_parameters - info.vocab_size * info.dim);
  CHECK(info.weight_bytes == 2 * info.n_parameters);
  std::vector<float> rows[2];
  for (mixtral_ctx* ctx : {headless.get(), tiny_ctx()}) {
    std::vector<float>& out = rows[ctx == tiny_ctx() ? 1 : 0];
    out.resize(ids.size() * static_cast<std::size_t>(info.dim));
    std::size_t n = 0;
    ok(mixtral_hidden(ctx, ids.data(), ids.size(), MIXTRAL_HIDDEN_FINAL, MIXTRAL_POOL_NONE, out.data(), out.size(),
                      &n));
    CHECK(n == out.size());
  }
  CHECK(rows[0] == rows[1]);

  const CSession session = make_session(headless.get());
  feed(session.get(), ids);
  const std::string want = tiny_dir().string() + ": opened without its head, which logits need";
  std::int32_t token = -7;
  CHECK(refused(mixtral_session_eval(session.get()), MIXTRAL_NOT_FOUND).find(want) == 0);
  CHECK(refused(mixtral_session_step(session.get(), &token), MIXTRAL_NOT_FOUND).find(want) == 0);
  CHECK(refused(mixtral_session_generate(session.get(), nullptr, nullptr), MIXTRAL_NOT_FOUND).find(want) == 0);
  CHECK(token == -7);
  mixtral_session_state state{};
  state.struct_size = sizeof state;
  ok(mixtral_session_info(session.get(), &state));
  CHECK(state.n_tokens == static_cast<std::int64_t>(ids.size()));
  CHECK(state.n_computed == 0);
  ok(mixtral_chat_begin(session.get(), MIXTRAL_CHAT_AUTO, 0));
  CHECK(refused(mixtral_chat_say(session.get(), "hi", 2, nullptr, nullptr), MIXTRAL_NOT_FOUND).find(want) == 0);
  ok(mixtral_session_info(session.get(), &state));
  CHECK(state.n_messages == 0);

  // A program of version 1.1 ends before the field, and asks for the head.
  p.struct_size = offsetof(mixtral_params, import_weights);
  const Ctx older = open_ctx(p);
  const CSession complete = make_session(older.get());
  feed(complete.get(), ids);
  ok(mixtral_session_eval(complete.get()));
}
