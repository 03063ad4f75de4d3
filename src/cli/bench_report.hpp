// The figures of `mixtral bench` as JSON, and as a table for people.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "cli/bench_run.hpp"

namespace mixtral::cli {

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

// Every repetition with its raw numbers; medians and ranges of those that count, null if there is none.
nlohmann::ordered_json bench_json(const BenchSubject& subject, const Plan& plan, const Measured& measured,
                                  Index probe_bytes);
std::string bench_text(const nlohmann::ordered_json& result);

}  // namespace mixtral::cli
