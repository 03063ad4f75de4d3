// What `mixtral bench` measures: reading a prompt and decoding, each between two probes of what bounds it.
#pragma once

#include <optional>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "mixtral/core/arena.hpp"
#include "mixtral/core/executor.hpp"
#include "mixtral/model/transformer.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/session.hpp"
#include "probes/statistics.hpp"

namespace mixtral::cli {

// What some steps did.
struct Work {
  Index steps = 0, tokens = 0;
  Index weight_bytes = 0;           // weights that a step needed, each once a step; no embedding table
  Index kv_bytes = 0;               // keys and values of earlier positions that the tokens looked at
  Index operations = 0;             // two for each weight and token that meet; no attention scores
  std::vector<Index> experts = {};  // [n_layers]: distinct ones, summed over the steps
};

// Follows the routing of steps.
class WorkCounter final : public ForwardObserver {
 public:
  WorkCounter(const Model& model, const KvLayout& kv);
  void on_routing(Index layer, const RoutingView& routing) override;
  // After each layer the matrix unit's speed is sampled from now on.
  void sample_unit() noexcept { samples_unit_ = true; }
  void on_layer(Index layer, TensorView<const float, 2> x) override;
  // After each step: its tokens' positions and how many logits it computed.
  void end_step(std::span<const Index> positions, Index n_logits);
  const Work& work() const noexcept { return work_; }
  const std::vector<double>& unit_rates() const noexcept { return unit_rates_; }
  double sampling_seconds() const noexcept { return sampling_seconds_; }

 private:
  const Model& model_;
  KvLayout kv_;
  Work work_;
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

// What bounds a phase.
enum class Resource { kDram, kF32, kByteProducts, kPairProducts };
// What bounds the products of a prompt: by the type of most weights.
Resource prompt_resource(const Model& model, const KernelTable& table) noexcept;

class Ceiling {
 public:
  Ceiling(Executor& executor, Isa isa);
  // Bytes or operations a second; 0: no probe for this instruction set.
  double probe(Resource resource) const;
  Index bytes() const noexcept { return static_cast<Index>(arena_.size()); }

 private:
  Executor& executor_;
  Isa isa_;
  Arena arena_;
};

struct Repetition {
  double seconds = 0, before = 0, after = 0;  // the ceiling's probes
  Work work;
  // With a matrix unit: its rates of one CPU, before, after and in between.
  std::vector<double> unit_rates = {};

  double tokens_per_second() const noexcept { return static_cast<double>(work.tokens) / seconds; }
  double bytes_per_second() const noexcept { return static_cast<double>(work.weight_bytes + work.kv_bytes) / seconds; }
  double operations_per_second() const noexcept { return static_cast<double>(work.operations) / seconds; }
  double ceiling() const noexcept { return 0.5 * (before + after); }
  // Whether the machine was equally fast before and after.
  bool steady() const noexcept { return probes::steady(before, after); }
};

struct Phase {
  Resource resource = Resource::kDram;
  Index batch = 1;  // sequences that decode
  Index depth = 0;  // tokens in the cache at the beginning
  // Bound by a matrix unit, whose speed may change at any moment: repetitions are told apart by it, none is dropped.
  bool has_modes = false;
  std::vector<Repetition> repetitions = {};

  bool counts(const Repetition& r) const noexcept { return has_modes || r.steady(); }
};

struct Plan {
  Index prompt = 512, decode = 64, depth = 0;
  Index chunk = SessionOptions{}.chunk;  // of a prompt's tokens, in one step
  std::vector<Index> batch = {1};
  Index ragged = 0;  // sequences that decode while the prompt is read once more
  DType kv_dtype = DType::kBF16;
  int repeat = 5;
};

struct Measured {
  std::optional<Phase> prefill, ragged;
  std::vector<Phase> decode;
  Index kv_bytes = 0, scratch_bytes = 0;
  Index anonymous_bytes = 0;  // of this process at most; 0 if the system does not tell
};

// One warm-up, then the plan's repetitions, each with all phases, so that phases can be compared.
Measured measure(const LoadedModel& loaded, const Ceiling& ceiling, const Plan& plan);

}  // namespace mixtral::cli
