#include "report/evaluation_tables.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "mixtral/core/error.hpp"
#include "report/numbers.hpp"
#include "report/routing_tables.hpp"

namespace mixtral::report {

using nlohmann::json;

json evaluation_json(const Evaluator& evaluator, Index n_read) {
  const auto cross_entropy = evaluator.cross_entropy();
  return {{"seq_len", n_read},
          {"targets", evaluator.n_targets()},
          {"cross_entropy", cross_entropy ? json(*cross_entropy) : json()},
          {"perplexity", cross_entropy ? json(std::exp(*cross_entropy)) : json()},
          {"load_balancing_loss", evaluator.load_balancing_loss()},
          {"expert_usage", routes_json(evaluator.routing())}};
}

std::string evaluation_text(const json& result) {
  const auto number = [](const json& j) {
    return j.is_null() ? "none: no token to predict" : fixed(j.get<double>(), 6);
  };
  std::string out = str("tokens read          ", result["seq_len"].get<Index>(), "\ntokens predicted     ",
                        result["targets"].get<Index>(), "\ncross-entropy        ", number(result["cross_entropy"]),
                        "\nperplexity           ", number(result["perplexity"]), "\nload-balancing loss  ",
                        number(result["load_balancing_loss"]), "\nchoices of each expert per layer\n");
  for (std::size_t l = 0; l < result["expert_usage"].size(); ++l) {
    out += padded(str(l), 5);
    for (const json& count : result["expert_usage"][l]) out += padded(str(count.get<Index>()), 8);
    out += "\n";
  }
  return out;
}

}  // namespace mixtral::report
