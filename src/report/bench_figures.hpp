// What a bench measured on what: plain data.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/dtype.hpp"
#include "mixtral/core/types.hpp"
#include "mixtral/model/weights.hpp"
#include "mixtral/runtime/session.hpp"
#include "probes/statistics.hpp"

namespace mixtral::report {

// What some steps did.
struct Work {
  Index steps = 0, tokens = 0;
  Index weight_bytes = 0;           // weights that a step needed, each once a step; no embedding table
  Index kv_bytes = 0;               // keys and values of earlier positions that the tokens looked at
  Index operations = 0;             // two for each weight and token that meet; no attention scores
  std::vector<Index> experts = {};  // [n_layers]: distinct ones, summed over the steps
};

// What bounds a phase.
enum class Resource { kDram, kF32, kByteProducts, kPairProducts };

// One run of a phase, between two probes of what bounds it.
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

// Reading a prompt, or decoding.
struct Phase {
  Resource resource = Resource::kDram;
  Index batch = 1;  // sequences that decode
  Index depth = 0;  // tokens in the cache at the beginning
  // Bound by a matrix unit, whose speed may change at any moment: repetitions are told apart by it, none is dropped.
  bool has_modes = false;
  std::vector<Repetition> repetitions = {};

  bool counts(const Repetition& r) const noexcept { return has_modes || r.steady(); }
};

// What is to be measured.
struct BenchPlan {
  Index prompt = 512, decode = 64, depth = 0;
  Index chunk = SessionOptions{}.chunk;  // of a prompt's tokens, in one step
  std::vector<Index> batch = {1};
  Index ragged = 0;  // sequences that decode while the prompt is read once more
  DType kv_dtype = DType::kBF16;
  int repeat = 5;
};

struct BenchFigures {
  std::optional<Phase> prefill, ragged;
  std::vector<Phase> decode;
  Index kv_bytes = 0, scratch_bytes = 0;
  Index anonymous_bytes = 0;  // of this process at most; 0 if the system does not tell
};

// AMX, whose speed has two modes.
struct MatrixUnit {
  Index from_tokens = 0;         // KernelTable::matrix_unit_tokens
  double times_vector_unit = 0;  // products of bytes, probe over probe
};

// What was measured on what.
struct BenchSubject {
  const Model& model;
  std::string name;             // of the synthetic shape, or the model's path
  std::string memory;           // where its weights are
  Index anonymous_weights = 0;  // bytes of them in memory of the process's own
  std::string_view isa;
  std::optional<MatrixUnit> matrix_unit = {};
  bool bf16_products = false;
  int threads = 1;
};

}  // namespace mixtral::report
