#include "capi_world.hpp"

#include <filesystem>

#include "expect.hpp"
#include "mixtral/io/write_huggingface.hpp"
#include "mixtral/runtime/session.hpp"
#include "support/models.hpp"
#include "support/sentencepiece_model.hpp"
#include "support/tokenizer_files.hpp"

namespace mixtral::fuzz {
namespace {

// Small, with a page border inside the context, control pieces of chat, bytes, and ids beyond the pieces.
Vocabulary vocabulary() {
  Vocabulary v = test::small_vocabulary({"[INST]", "[/INST]", "a", "b", "ab", "[", "]", "/", "I", "N", "S", "T",
                                         "\xE2\x96\x81"
                                         "a"});
  test::add_byte_pieces(v);
  v.types[4] = v.types[5] = PieceType::kControl;
  return v;
}

ModelConfig config(Index n_pieces) {
  ModelConfig c;
  c.dim = 16;
  c.hidden_dim = 8;
  c.n_layers = 2;
  c.n_heads = 2;
  c.n_kv_heads = 1;
  c.head_dim = 8;
  c.n_experts = 4;
  c.n_experts_per_tok = 2;
  c.vocab_size = n_pieces + 3;
  c.max_positions = 40;
  return c;
}

mixtral_ctx* open(const std::string& path, std::int32_t executor, std::int32_t n_threads, mixtral_run_fn run,
                  mixtral_log_fn log, void* user) {
  mixtral_params params;
  expect(mixtral_params_init(&params, sizeof params) == MIXTRAL_OK, "the defaults can be had");
  params.executor = executor;
  params.n_threads = n_threads;
  params.run = run;
  params.run_user = user;
  params.log = log;
  params.log_user = user;
  mixtral_ctx* ctx = nullptr;
  if (mixtral_ctx_create(path.data(), path.size(), &params, &ctx) != MIXTRAL_OK) broken(mixtral_last_error());
  return ctx;
}

}  // namespace

World::World(mixtral_run_fn run, mixtral_log_fn log, void* user) : table_(make_table(best_isa())) {
  const std::string model = dir_ / "model", ids_only = dir_ / "ids_only";
  const Vocabulary v = vocabulary();
  const test::RandomModel random(config(v.size()));
  for (const std::string& path : {model, ids_only, (dir_ / "broken").string(), (dir_ / "gelu").string()}) {
    write_huggingface(path, random.model.config, random.model.weights);
  }
  test::write_text(model + "/tokenizer.model", test::sentencepiece_model_bytes(v));
  test::write_text(dir_ / "broken/model.safetensors", "no safetensors");
  std::string gelu = read_file(dir_ / "gelu/config.json", 1 << 20);
  gelu.replace(gelu.find("silu"), 4, "gelu");
  test::write_text(dir_ / "gelu/config.json", gelu);
  std::filesystem::create_directories(dir_ / "directory/config.json");
  places_ = {{model, MIXTRAL_OK},
             {ids_only, MIXTRAL_OK},
             {dir_ / "broken", MIXTRAL_BAD_FORMAT},
             {dir_ / "gelu", MIXTRAL_UNSUPPORTED},
             {dir_ / "directory", MIXTRAL_IO},
             {dir_ / "missing", MIXTRAL_NOT_FOUND},
             {std::string("a\0b", 3), MIXTRAL_INVALID_ARGUMENT},
             {"", MIXTRAL_INVALID_ARGUMENT}};
  opened_ = open_model(model);
  ctxs_ = {open(model, MIXTRAL_EXECUTOR_THREADS, 1, nullptr, nullptr, nullptr),
           open(model, MIXTRAL_EXECUTOR_THREADS, 2, nullptr, nullptr, nullptr),
           open(model, MIXTRAL_EXECUTOR_HOST, 3, run, log, user),
           open(ids_only, MIXTRAL_EXECUTOR_THREADS, 1, nullptr, nullptr, nullptr)};
}

World::~World() {
  for (mixtral_ctx* ctx : ctxs_) mixtral_ctx_destroy(ctx);
}

std::vector<float> World::reference(std::span<const std::int32_t> tokens) const {
  SerialExecutor serial;
  Session session(opened_.model, table_, serial);
  session.feed(tokens);
  session.eval();
  const auto logits = session.logits();
  return {logits.begin(), logits.end()};
}

}  // namespace mixtral::fuzz
