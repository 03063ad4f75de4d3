#include "capi_world.hpp"

#include <filesystem>

#include "expect.hpp"
#include "mixtral/core/file.hpp"
#include "mixtral/runtime/session.hpp"
#include "support/small_checkpoint.hpp"

namespace mixtral::fuzz {
namespace {

mixtral_ctx* open(const std::string& path, std::int32_t executor, std::int32_t n_threads, mixtral_run_fn run,
                  mixtral_log_fn log, void* user, std::int32_t head = MIXTRAL_HEAD_REQUIRED) {
  mixtral_params params;
  expect(mixtral_params_init(&params, sizeof params) == MIXTRAL_OK, "the defaults can be had");
  params.executor = executor;
  params.n_threads = n_threads;
  params.run = run;
  params.run_user = user;
  params.log = log;
  params.log_user = user;
  params.head = head;
  mixtral_ctx* ctx = nullptr;
  if (mixtral_ctx_create(path.data(), path.size(), &params, &ctx) != MIXTRAL_OK) broken(mixtral_last_error());
  return ctx;
}

}  // namespace

World::World(mixtral_run_fn run, mixtral_log_fn log, void* user) {
  const std::string model = dir_ / "model", ids_only = dir_ / "ids_only";
  for (const std::string& path :
       {model, ids_only, (dir_ / "broken").string(), (dir_ / "gelu").string(), (dir_ / "headless").string()}) {
    test::write_small_checkpoint(path);
  }
  std::filesystem::remove(ids_only + "/tokenizer.model");
  test::write_text(dir_ / "broken/model.safetensors", "no safetensors");
  std::string gelu = read_file(dir_ / "gelu/config.json", 1 << 20);
  gelu.replace(gelu.find("silu"), 4, "gelu");
  test::write_text(dir_ / "gelu/config.json", gelu);
  std::filesystem::create_directories(dir_ / "directory/config.json");
  const Checkpoint headless = load_checkpoint(dir_ / "headless", {.resident = true, .head = Head::kNone});
  write_huggingface(dir_ / "headless", headless.model.config, headless.model.weights);
  places_ = {{model, MIXTRAL_OK, false, true},
             {ids_only, MIXTRAL_OK},
             {dir_ / "broken", MIXTRAL_BAD_FORMAT},
             {dir_ / "gelu", MIXTRAL_UNSUPPORTED},
             {dir_ / "directory", MIXTRAL_IO},
             {dir_ / "missing", MIXTRAL_NOT_FOUND},
             {std::string("a\0b", 3), MIXTRAL_INVALID_ARGUMENT},
             {"", MIXTRAL_INVALID_ARGUMENT},
             {dir_ / "headless", MIXTRAL_BAD_FORMAT, true, true}};
  opened_.emplace(load_checkpoint(model).model, make_table(best_isa()), serial_);
  ctxs_ = {open(model, MIXTRAL_EXECUTOR_THREADS, 1, nullptr, nullptr, nullptr),
           open(model, MIXTRAL_EXECUTOR_THREADS, 2, nullptr, nullptr, nullptr),
           open(model, MIXTRAL_EXECUTOR_HOST, 3, run, log, user),
           open(dir_ / "headless", MIXTRAL_EXECUTOR_THREADS, 1, nullptr, nullptr, nullptr, MIXTRAL_HEAD_NONE),
           open(ids_only, MIXTRAL_EXECUTOR_THREADS, 1, nullptr, nullptr, nullptr)};
}

World::~World() {
  for (mixtral_ctx* ctx : ctxs_) mixtral_ctx_destroy(ctx);
}

std::vector<float> World::reference(std::span<const std::int32_t> tokens, std::int32_t kv_type) const {
  const DType kv_dtype = kv_type == MIXTRAL_KV_F32 ? DType::kF32 : kv_type == MIXTRAL_KV_I8 ? DType::kI8 : DType::kBF16;
  Session session(*opened_, {.kv_dtype = kv_dtype});
  session.feed(tokens);
  session.eval();
  const auto logits = session.logits();
  return {logits.begin(), logits.end()};
}

}  // namespace mixtral::fuzz
