// Opening a model, and what is known about it.
#include <filesystem>

#include "handles.hpp"
#include "mixtral/core/openmp_executor.hpp"
#include "mixtral/core/thread_executor.hpp"
#include "mixtral/model/kv_cache.hpp"
#include "mixtral/runtime/available_threads.hpp"
#include "options.hpp"

namespace mixtral::capi {
namespace {

constexpr mixtral_params kDefaults{.struct_size = sizeof(mixtral_params),
                                   .isa = MIXTRAL_ISA_BEST,
                                   .executor = MIXTRAL_EXECUTOR_THREADS,
                                   .n_threads = 0,
                                   .run = nullptr,
                                   .run_user = nullptr,
                                   .log = nullptr,
                                   .log_user = nullptr,
                                   .bf16_products = MIXTRAL_BF16_FLOAT32,
                                   .reserved = 0,
                                   .resident = 0,
                                   .reserved2 = 0,
                                   .import_weights = MIXTRAL_IMPORT_PACKED,
                                   .head = MIXTRAL_HEAD_REQUIRED};

// The numbers of both are the same ones.
constexpr bool is(Isa isa, std::int32_t number) { return static_cast<std::int32_t>(isa) == number; }
static_assert(is(Isa::kReference, MIXTRAL_ISA_REFERENCE) && is(Isa::kAvx2, MIXTRAL_ISA_AVX2) &&
              is(Isa::kAvx512, MIXTRAL_ISA_AVX512) && is(Isa::kAvx512Vnni, MIXTRAL_ISA_AVX512_VNNI) &&
              is(Isa::kAmxInt8, MIXTRAL_ISA_AMX_INT8) && is(Isa::kAvx2Vnni, MIXTRAL_ISA_AVX2_VNNI) &&
              is(Isa::kNeon, MIXTRAL_ISA_NEON));

Isa cap_of(const mixtral_params& params) {
  constexpr std::int32_t kLast = MIXTRAL_ISA_NEON;
  require(params.isa >= MIXTRAL_ISA_BEST && params.isa <= kLast, "params: isa is ", params.isa, ", expected -1 to ",
          kLast);
  if (params.isa == MIXTRAL_ISA_BEST) return best_isa();
  const auto compiled = all_isas();
  const auto cap = static_cast<Isa>(params.isa);
  return std::find(compiled.begin(), compiled.end(), cap) != compiled.end() ? cap : Isa::kReference;
}

Bf16Products bf16_products(const mixtral_params& params) {
  require(params.bf16_products == MIXTRAL_BF16_FLOAT32 || params.bf16_products == MIXTRAL_BF16_ROUNDED,
          "params: bf16_products is ", params.bf16_products, ", expected MIXTRAL_BF16_*");
  require(params.reserved == 0, "params: reserved is ", params.reserved, ", expected 0");
  return params.bf16_products == MIXTRAL_BF16_ROUNDED ? Bf16Products::kRounded : Bf16Products::kFloat32;
}

bool is_resident(const mixtral_params& params) {
  require(params.resident == 0 || params.resident == 1, "params: resident is ", params.resident, ", expected 0 or 1");
  require(params.reserved2 == 0, "params: reserved2 is ", params.reserved2, ", expected 0");
  return params.resident == 1;
}

QuantizedImport import_of(const mixtral_params& params) {
  const std::int32_t import = params.import_weights;
  require(import == MIXTRAL_IMPORT_PACKED || import == MIXTRAL_IMPORT_FLOAT, "params: import_weights is ", import,
          ", expected MIXTRAL_IMPORT_*");
  return static_cast<QuantizedImport>(import);
}

Head head_of(const mixtral_params& params) {
  require(params.head == MIXTRAL_HEAD_REQUIRED || params.head == MIXTRAL_HEAD_NONE, "params: head is ", params.head,
          ", expected MIXTRAL_HEAD_*");
  return static_cast<Head>(params.head);
}

std::unique_ptr<Executor> make_executor(const mixtral_params& params) {
  require(params.n_threads >= 0 && params.n_threads <= 1024, "params: n_threads is ", params.n_threads,
          ", expected 0 to 1024");
  require((params.run != nullptr) == (params.executor == MIXTRAL_EXECUTOR_HOST),
          "params: run must be given for MIXTRAL_EXECUTOR_HOST and for nothing else");
  const int n = params.n_threads > 0 ? params.n_threads : available_threads();
  switch (params.executor) {
    case MIXTRAL_EXECUTOR_THREADS: return std::make_unique<ThreadExecutor>(n);
    case MIXTRAL_EXECUTOR_HOST: return std::make_unique<HostExecutor>(n, params.run, params.run_user);
    case MIXTRAL_EXECUTOR_OPENMP:
#ifdef _OPENMP
      return std::make_unique<OpenMpExecutor>(n);
#else
      fail(ErrorCode::kUnsupported, "params: executor is MIXTRAL_EXECUTOR_OPENMP, this library has no OpenMP");
#endif
    default: fail(ErrorCode::kInvalidArgument, "params: executor is ", params.executor, ", expected 0 to 2");
  }
}

void log(const Engine& engine, std::int32_t level, const std::string& text) {
  if (engine.log != nullptr) engine.log(engine.log_user, level, text.data(), text.size());
}

void log_opened(const Engine& engine) {
  if (engine.log == nullptr) return;
  const ModelConfig& c = engine.model.config();
  log(engine, MIXTRAL_LOG_INFO,
      str(engine.model.path.string(), ": ", c.n_layers, " layers, ", c.n_experts, " experts, ", c.n_experts_per_tok,
          " per token; ", engine.model.table.name, " on ", engine.model.executor->n_workers(), " threads"));
  for (const std::string& note : engine.model.checkpoint.notes) log(engine, MIXTRAL_LOG_WARNING, note);
  if (!engine.model.tokenizer) {
    log(engine, MIXTRAL_LOG_WARNING, engine.model.path.string() + ": no tokenizer, token ids only");
    return;
  }
  try {
    const auto [style, why] = engine.model.chat_style();
    log(engine, MIXTRAL_LOG_INFO,
        str(engine.model.path.string(), ": conversations are in style ", name_of(style), ": ", why));
  } catch (const Error& error) {
    log(engine, MIXTRAL_LOG_WARNING, error.what());
  }
}

// 0: no tokenizer, or a template of no known style.
std::int32_t chat_style(const LoadedModel& model) {
  if (!model.tokenizer) return 0;
  try {
    return static_cast<std::int32_t>(model.chat_style().style);
  } catch (const Error&) {
    return 0;
  }
}

mixtral_info describe(const Engine& engine) {
  const ModelConfig& c = engine.model.config();
  const ParameterCount parameters = count_parameters(c);
  mixtral_info info{};
  info.isa = static_cast<std::int32_t>(isa_from_name(engine.model.table.name));
  info.executor = engine.executor_kind;
  info.n_threads = engine.model.executor->n_workers();
  info.dim = c.dim;
  info.hidden_dim = c.hidden_dim;
  info.n_layers = c.n_layers;
  info.n_heads = c.n_heads;
  info.n_kv_heads = c.n_kv_heads;
  info.head_dim = c.head_dim;
  info.n_experts = c.n_experts;
  info.n_experts_per_tok = c.n_experts_per_tok;
  info.vocab_size = c.vocab_size;
  info.max_positions = c.max_positions;
  info.sliding_window = c.sliding_window;
  info.n_parameters = parameters.total;
  info.n_active = parameters.active;
  info.weight_bytes = weight_bytes(engine.model.model());
  info.kv_bytes_per_page = kv_layout(c, SessionOptions{}.kv_dtype).page_bytes();
  info.bos_id = c.bos_id;
  info.eos_id = c.eos_ids.empty() ? -1 : c.eos_ids.front();
  if (engine.model.tokenizer) {
    const Vocabulary& vocabulary = engine.model.tokenizer->vocabulary();
    info.n_pieces = vocabulary.size();
    info.add_bos = vocabulary.add_bos && vocabulary.bos_id >= 0 ? 1 : 0;
  }
  info.chat_style = chat_style(engine.model);
  return info;
}

}  // namespace
}  // namespace mixtral::capi

using namespace mixtral;
using namespace mixtral::capi;

mixtral_status mixtral_params_init(mixtral_params* params, size_t struct_size) {
  return guarded([&] { init_struct(params, struct_size, kDefaults, "params"); });
}

mixtral_status mixtral_ctx_create(const char* path, size_t path_size, const mixtral_params* params, mixtral_ctx** ctx) {
  return guarded([&] {
    const std::string_view dir = input_text(path, path_size, "path");
    require(!dir.empty() && dir.find('\0') == dir.npos, "path is empty or has a zero byte");
    require(ctx != nullptr, "the place for the ctx is NULL");
    const mixtral_params p = params == nullptr ? kDefaults : read_struct(params, kDefaults, "params");
    LoadedModel model(std::filesystem::path(dir), {.isa = cap_of(p),
                                                   .bf16_products = bf16_products(p),
                                                   .executor = make_executor(p),
                                                   .resident = is_resident(p),
                                                   .import = import_of(p),
                                                   .head = head_of(p)});
    const ModelConfig config = model.config();
    const std::shared_ptr<Engine> engine(new Engine{.model = std::move(model),
                                                    .executor_kind = p.executor,
                                                    .log = p.log,
                                                    .log_user = p.log_user,
                                                    .totals = RoutingTotals(config)});
    auto handle = std::make_unique<mixtral_ctx>(engine);
    log_opened(*engine);
    *ctx = handle.release();
  });
}

void mixtral_ctx_destroy(mixtral_ctx* ctx) {
  if (ctx != nullptr && ctx->tag.is(Tag::Kind::kCtx)) delete ctx;
}

mixtral_status mixtral_ctx_info(const mixtral_ctx* ctx, mixtral_info* info) {
  return guarded([&] { write_struct(info, describe(engine_of(ctx)), "info"); });
}

mixtral_status mixtral_ctx_routing_counts(mixtral_ctx* ctx, uint64_t* counts, size_t capacity, size_t* n_counts) {
  return guarded([&] {
    const Output out(counts, capacity, n_counts, "counts");
    const RoutingStats totals = engine_of(ctx).totals.read();
    out.write(totals.counts());
  });
}

mixtral_status mixtral_ctx_reset_routing_counts(mixtral_ctx* ctx) {
  return guarded([&] { engine_of(ctx).totals.reset(); });
}
