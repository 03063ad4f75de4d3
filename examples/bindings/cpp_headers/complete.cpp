// C++20 over the library's own headers (mixtral::core): opens a model, streams a greedy completion, prints which
// experts worked.
#include <exception>
#include <iomanip>
#include <iostream>
#include <string_view>

#include "mixtral/runtime/generate.hpp"
#include "mixtral/runtime/loaded_model.hpp"
#include "mixtral/runtime/routing_stats.hpp"

namespace {

// A line for each layer: which percentage of its tokens' choices fell on each expert.
void print_experts(const mixtral::RoutingStats& stats) {
  std::cout << "\n\nshare of each expert (%)\n";
  for (mixtral::Index layer = 0; layer < stats.n_layers(); ++layer) {
    const mixtral::Index total = stats.total(layer);
    std::cout << "layer " << layer << ":";
    for (mixtral::Index e = 0; e < stats.n_experts(); ++e) {
      std::cout << std::setw(4) << (100 * stats.count(layer, e) + total / 2) / total;
    }
    std::cout << "\n";
  }
}

void run(const char* path) {
  const mixtral::LoadedModel model(path);  // maps the files, copies no weight; computes on all CPUs of this process
  mixtral::Session session(model);         // looks at the model: declared after it, it goes before it
  session.feed(model.prompt("RETURN VALUE\n       On success,"));

  mixtral::RoutingStats stats(model.config());
  mixtral::GenerateOptions options;
  options.max_tokens = 48;
  options.sampler.temperature = 0;  // greedy
  options.stop_ids = model.config().eos_ids;
  options.on_token = [](mixtral::TokenId, std::string_view text) {
    return static_cast<bool>(std::cout << text << std::flush);  // false stops
  };
  mixtral::generate(session, &model.require_tokenizer(), options, &stats);
  print_experts(stats);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc > 1 ? argv[1] : "examples/models/tiny");
  } catch (const std::exception& error) {  // mixtral::Error, std::bad_alloc
    std::cerr << error.what() << "\n";
    return 1;
  }
}
