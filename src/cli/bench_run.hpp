// What `mixtral bench` measures: reading a prompt and decoding, each between two probes of what bounds it.
#pragma once

#include <random>
#include <span>
#include <utility>
#include <vector>

#include "mixtral/core/arena.hpp"
#include "mixtral/core/executor.hpp"
#include "mixtral/model/transformer.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/session.hpp"
#include "report/bench_figures.hpp"

namespace mixtral::cli {

// Follows the routing of steps.
class WorkCounter final : public ForwardObserver {
 public:
  WorkCounter(const Model& model, const KvLayout& kv);
  void on_routing(Index layer, const moe::RoutingView& routing) override;
  // After each layer the matrix unit's speed is sampled from now on.
  void sample_unit() noexcept { samples_unit_ = true; }
  void on_layer(Index layer, TensorView<const float, 2> x) override;
  // After each step: its tokens' positions and how many logits it computed.
  void end_step(std::span<const Index> positions, Index n_logits);
  const report::Work& work() const noexcept { return work_; }
  const std::vector<double>& unit_rates() const noexcept { return unit_rates_; }
  double sampling_seconds() const noexcept { return sampling_seconds_; }

 private:
  const Model& model_;
  KvLayout kv_;
  report::Work work_;
  std::vector<std::uint8_t> chosen_;  // [n_experts]
  bool samples_unit_ = false;
  std::vector<double> unit_rates_;  // operations a second of one CPU
  double sampling_seconds_ = 0;
};

// Sequences of random tokens that go through the model together, each in a slot of one KV cache.
class Sequences {
 public:
  // `count` sequences of at most `positions` tokens, read `chunk` at a time. Throws Error(kInvalidArgument) if the
  // model has fewer positions.
  Sequences(const Model& model, const OpContext& context, DType kv_dtype, Index count, Index positions, Index chunk);

  // Sequence i goes on by n random tokens; the last one's logits are computed if wanted.
  void extend(Index i, Index n, bool logits, WorkCounter* counter = nullptr);
  // One step: each of the first n sequences goes on by one random token, and all logits are computed.
  void step(Index n, WorkCounter* counter);
  // Sequence i goes on by n random tokens, in chunks; in the step of each chunk the first `others` sequences go on by
  // one token each. Logits of these, and of the last one of sequence i.
  void extend_beside(Index i, Index n, Index others, WorkCounter* counter);
  // So many sequences forget what is behind `length`.
  void truncate(Index first, Index n, Index length);

  Index kv_bytes() const noexcept { return cache_.allocated_bytes(); }

 private:
  void run(Index n_logits, WorkCounter* counter);
  // The next n tokens of a sequence join the next step.
  void add(Index sequence, Index n);

  const Model& model_;
  OpContext context_;
  Index chunk_;
  KvCache cache_;
  Forward forward_;
  std::mt19937 random_{7};
  // Of the next step.
  std::vector<TokenId> tokens_;
  std::vector<Index> positions_, logit_rows_;
  std::vector<SlotId> slots_;
  std::vector<std::pair<SlotId, Index>> added_;
};

// What bounds the products of a prompt: by the type of most weights.
report::Resource prompt_resource(const Model& model, const KernelTable& table) noexcept;

class Ceiling {
 public:
  Ceiling(Executor& executor, Isa isa);
  // Bytes or operations a second; 0: no probe for this instruction set.
  double probe(report::Resource resource) const;
  Index bytes() const noexcept { return static_cast<Index>(arena_.size()); }

 private:
  Executor& executor_;
  Isa isa_;
  Arena arena_;
};

// One warm-up, then the plan's repetitions, each with all phases, so that phases can be compared.
report::BenchFigures measure(const LoadedModel& loaded, const Ceiling& ceiling, const report::BenchPlan& plan);

}  // namespace mixtral::cli
