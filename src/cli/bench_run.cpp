#include "cli/bench_run.hpp"

#include <algorithm>
#include <cstring>
#include <fstream>
#include <string>

#include "cli/common.hpp"
#include "mixtral/runtime/session.hpp"
#include "probes/probes.hpp"

namespace mixtral::cli {

using report::BenchFigures;
using report::BenchPlan;
using report::Phase;
using report::Repetition;
using report::Resource;

namespace {

Index pages_for(Index positions) noexcept { return (positions + KvLayout::kPositions - 1) / KvLayout::kPositions; }

// Anonymous memory of this process now; 0 if the system does not tell.
Index anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("RssAnon:")) return Index{1024} * std::stoll(line.substr(8));
  }
  return 0;
}

Index expert_bytes(const moe::ExpertWeights& e) noexcept { return e.w1.bytes() + e.w2.bytes() + e.w3.bytes(); }

// Weights of a layer that work on every token.
std::vector<const MatrixView*> dense_of(const LayerWeights& w) { return {&w.wq, &w.wk, &w.wv, &w.wo, &w.router}; }

Index weights_of(const MatrixView& w) noexcept { return w.rows * w.cols; }

}  // namespace

WorkCounter::WorkCounter(const Model& model, const KvLayout& kv)
    : model_(model), kv_(kv), chosen_(static_cast<std::size_t>(model.config.n_experts)) {
  work_.experts.resize(static_cast<std::size_t>(model.config.n_layers));
}

void WorkCounter::on_routing(Index layer, const moe::RoutingView& routing) {
  std::fill(chosen_.begin(), chosen_.end(), 0);
  const auto& experts = model_.weights.layers[static_cast<std::size_t>(layer)].experts;
  for (Index t = 0; t < routing.experts.dim(0); ++t) {
    for (const ExpertId id : routing.experts.row_span(t)) {
      if (id == moe::kNoExpert) continue;
      const auto e = static_cast<std::size_t>(id);
      const moe::ExpertWeights& expert = experts[e];
      work_.operations += 2 * (weights_of(expert.w1) + weights_of(expert.w2) + weights_of(expert.w3));
      if (chosen_[e] != 0) continue;
      chosen_[e] = 1;
      work_.weight_bytes += expert_bytes(expert);
      ++work_.experts[static_cast<std::size_t>(layer)];
    }
  }
}

void WorkCounter::on_layer(Index, TensorView<const float, 2>) {
  if (!samples_unit_) return;
  const double begin = seconds();
  unit_rates_.push_back(probes::matrix_unit_sample());
  sampling_seconds_ += seconds() - begin;
}

void WorkCounter::end_step(std::span<const Index> positions, Index n_logits) {
  const ModelConfig& c = model_.config;
  const Weights& w = model_.weights;
  const auto n = static_cast<Index>(positions.size());
  ++work_.steps;
  work_.tokens += n;
  for (const LayerWeights& layer : w.layers) {
    work_.weight_bytes += layer.attention_norm.bytes() + layer.ffn_norm.bytes();
    for (const MatrixView* matrix : dense_of(layer)) {
      work_.weight_bytes += matrix->bytes();
      work_.operations += 2 * n * weights_of(*matrix);
    }
  }
  const Index kv_row = kv_.page_bytes() / KvLayout::kPositions;
  for (const Index p : positions) work_.kv_bytes += kv_row * (c.sliding_window > 0 ? std::min(p, c.sliding_window) : p);
  if (n_logits == 0) return;
  const MatrixView& head = c.tied_embeddings ? w.embedding : w.head;
  work_.weight_bytes += w.final_norm.bytes() + head.bytes();
  work_.operations += 2 * n_logits * weights_of(head);
}

Sequences::Sequences(const Model& model, const OpContext& context, DType kv_dtype, Index count, Index positions,
                     Index chunk)
    : model_(model),
      context_(context),
      chunk_(chunk),
      cache_(kv_layout(model.config, kv_dtype), count, count * pages_for(std::max<Index>(positions, 1))) {
  require(positions <= model.config.max_positions, "bench: ", positions, " tokens in a sequence, the model has ",
          model.config.max_positions, " positions");
  for (Index i = 0; i < count; ++i) cache_.open();
}

void Sequences::add(Index sequence, Index n) {
  const auto slot = static_cast<SlotId>(sequence);
  const Index length = cache_.length(slot);
  cache_.reserve(slot, n);
  added_.emplace_back(slot, n);
  for (Index p = length; p < length + n; ++p) {
    tokens_.push_back(static_cast<TokenId>(random_() % static_cast<unsigned>(model_.config.vocab_size)));
    positions_.push_back(p);
    slots_.push_back(slot);
  }
}

void Sequences::extend(Index i, Index n, bool logits, WorkCounter* counter) {
  while (n > 0) {
    const Index count = std::min(n, chunk_);
    n -= count;
    add(i, count);
    run(logits && n == 0 ? 1 : 0, counter);
  }
}

void Sequences::step(Index n, WorkCounter* counter) {
  for (Index i = 0; i < n; ++i) add(i, 1);
  run(n, counter);
}

void Sequences::extend_beside(Index i, Index n, Index others, WorkCounter* counter) {
  while (n > 0) {
    const Index count = std::min(n, chunk_);
    n -= count;
    add(i, count);
    for (Index other = 0; other < others; ++other) add(other, 1);
    run(others + (n == 0 ? 1 : 0), counter);
  }
}

// The tokens that were added, with logits of the last ones.
void Sequences::run(Index n_logits, WorkCounter* counter) {
  const ScratchScope scope(context_.scratch);
  const auto n = static_cast<Index>(tokens_.size());
  logit_rows_.clear();
  for (Index row = n - n_logits; row < n; ++row) logit_rows_.push_back(row);
  const auto logits = context_.scratch.matrix<float>(n_logits, model_.config.vocab_size);
  forward_(context_, model_, {.tokens = tokens_, .positions = positions_, .slots = slots_, .logit_rows = logit_rows_},
           cache_, logits, counter);
  if (counter != nullptr) counter->end_step(positions_, n_logits);
  for (const auto& [slot, count] : added_) cache_.commit(slot, count);
  added_.clear();
  tokens_.clear();
  positions_.clear();
  slots_.clear();
}

void Sequences::truncate(Index first, Index n, Index length) {
  for (Index i = first; i < first + n; ++i) cache_.truncate(static_cast<SlotId>(i), length);
}

Resource prompt_resource(const Model& model, const KernelTable& table) noexcept {
  const MatrixView& w = model.weights.layers[0].experts[0].w1;
  if (w.is_packed()) return Resource::kByteProducts;
  return table.round_to_bf16 && w.dtype == DType::kBF16 ? Resource::kPairProducts : Resource::kF32;
}

Ceiling::Ceiling(Executor& executor, Isa isa) : executor_(executor), isa_(isa), arena_(probes::kDramBytes) {
  std::memset(arena_.data(), 1, arena_.size());
}

double Ceiling::probe(Resource resource) const {
  switch (resource) {
    case Resource::kDram: return probes::dram_read_rate(arena_, executor_);
    case Resource::kF32: return probes::f32_rate(executor_, isa_);
    case Resource::kPairProducts: return probes::pair_product_rate(executor_, isa_);
    default: return probes::byte_product_rate(executor_, isa_);
  }
}

namespace {

// Runs `work` between two probes; a warm-up is not kept.
template <class F>
void repeat_phase(Phase& phase, WorkCounter counter, const Ceiling& ceiling, bool keep, F&& work) {
  Repetition r;
  const auto sample = [&] {
    if (phase.has_modes) r.unit_rates.push_back(probes::matrix_unit_sample());
  };
  if (phase.has_modes) counter.sample_unit();
  r.before = ceiling.probe(phase.resource);
  sample();
  const double begin = seconds();
  work(counter);
  r.seconds = seconds() - begin - counter.sampling_seconds();
  r.unit_rates.insert(r.unit_rates.end(), counter.unit_rates().begin(), counter.unit_rates().end());
  sample();
  r.after = ceiling.probe(phase.resource);
  r.work = counter.work();
  if (keep) phase.repetitions.push_back(std::move(r));
}

void require_plan(const BenchPlan& plan) {
  require(plan.prompt >= 0 && plan.decode >= 0 && plan.depth >= 0 && plan.repeat > 0, "bench: ", plan.prompt,
          " tokens of prompt, ", plan.decode, " decoded ones, depth ", plan.depth, ", ", plan.repeat, " repetitions");
  require(plan.ragged == 0 || (plan.ragged > 0 && plan.prompt > 0), "bench: ", plan.ragged,
          " sequences that decode beside a prompt of ", plan.prompt, " tokens");
  for (const Index b : plan.batch) require(b > 0, "bench: a batch of ", b);
}

}  // namespace

BenchFigures measure(const LoadedModel& loaded, const Ceiling& ceiling, const BenchPlan& plan) {
  require_plan(plan);
  const Model& model = loaded.model();
  const KernelTable& table = loaded.table;
  BenchFigures out;
  const Resource prompt_bound = prompt_resource(model, table);
  const bool has_modes =
      prompt_bound == Resource::kByteProducts && std::min(plan.prompt, plan.chunk) >= table.matrix_unit_tokens;
  if (plan.prompt > 0) out.prefill = Phase{.resource = prompt_bound, .has_modes = has_modes};
  Index most = 0;
  for (const Index batch : plan.batch) {
    if (plan.decode == 0) break;
    out.decode.push_back({.batch = batch, .depth = plan.depth});
    most = std::max(most, batch);
  }
  const WorkCounter counter(model, kv_layout(model.config, plan.kv_dtype));
  Scratch scratch(huge_pages());
  const OpContext context{table, *loaded.executor, scratch};
  Sequences prompt(model, context, plan.kv_dtype, 1, plan.prompt, plan.chunk);
  Sequences batch(model, context, plan.kv_dtype, std::max<Index>(most, 1), most > 0 ? plan.depth + plan.decode : 0,
                  plan.chunk);
  for (Index i = 0; i < most; ++i) batch.extend(i, plan.depth, false);
  // The last one reads the prompt.
  Sequences ragged(
      model, context, plan.kv_dtype, plan.ragged + 1,
      plan.ragged > 0 ? std::max(plan.prompt, plan.depth + (plan.prompt + plan.chunk - 1) / plan.chunk) : 0,
      plan.chunk);
  if (plan.ragged > 0)
    out.ragged = Phase{.resource = prompt_bound, .batch = plan.ragged, .depth = plan.depth, .has_modes = has_modes};
  for (Index i = 0; i < plan.ragged; ++i) ragged.extend(i, plan.depth, false);
  for (int r = 0; r <= plan.repeat; ++r) {
    if (out.prefill) {
      repeat_phase(*out.prefill, counter, ceiling, r > 0,
                   [&](WorkCounter& count) { prompt.extend(0, plan.prompt, true, &count); });
      prompt.truncate(0, 1, 0);
    }
    if (out.ragged) {
      repeat_phase(*out.ragged, counter, ceiling, r > 0,
                   [&](WorkCounter& count) { ragged.extend_beside(plan.ragged, plan.prompt, plan.ragged, &count); });
      ragged.truncate(0, plan.ragged, plan.depth);
      ragged.truncate(plan.ragged, 1, 0);
    }
    for (Phase& phase : out.decode) {
      repeat_phase(phase, counter, ceiling, r > 0, [&](WorkCounter& count) {
        for (Index i = 0; i < plan.decode; ++i) batch.step(phase.batch, &count);
      });
      batch.truncate(0, phase.batch, plan.depth);
    }
    out.anonymous_bytes = std::max(out.anonymous_bytes, anonymous_bytes());
  }
  out.kv_bytes = prompt.kv_bytes() + batch.kv_bytes() + ragged.kv_bytes();
  out.scratch_bytes = static_cast<Index>(scratch.capacity_bytes());
  return out;
}

}  // namespace mixtral::cli
