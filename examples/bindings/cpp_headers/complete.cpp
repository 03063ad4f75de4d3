// C++20 over the library's own headers (mixtral::core): opens a model, streams a greedy completion, prints which
// experts worked.
#include <exception>
#include <iomanip>
#include <iostream>
#include <string_view>

#include "mixtral/core/thread_executor.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/available_threads.hpp"
#include "mixtral/runtime/generate.hpp"
#include "mixtral/runtime/open_model.hpp"
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
  const mixtral::OpenedModel opened = mixtral::open_model(path);  // maps the files, copies no weight
  const mixtral::Tokenizer& tokenizer = opened.require_tokenizer();
  const mixtral::KernelTable kernels = mixtral::make_table(mixtral::best_isa());
  mixtral::ThreadExecutor threads(mixtral::available_threads());

  // The session looks at model, kernels and threads: declared after them, it goes before them.
  mixtral::Session session(opened.model, kernels, threads);
  if (tokenizer.vocabulary().add_bos) session.feed(tokenizer.vocabulary().bos_id);
  session.feed(tokenizer.encode("RETURN VALUE\n       On success,"));

  mixtral::RoutingStats stats(opened.model.config);
  mixtral::GenerateOptions options;
  options.max_tokens = 48;
  options.sampler.temperature = 0;  // greedy
  options.stop_ids = opened.model.config.eos_ids;
  options.on_token = [](mixtral::TokenId, std::string_view text) {
    return static_cast<bool>(std::cout << text << std::flush);  // false stops
  };
  mixtral::generate(session, &tokenizer, options, &stats);
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
