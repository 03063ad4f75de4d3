// C++17 over the C ABI (mixtral.hpp): opens a model, streams a greedy completion, prints which experts worked.
#include <cstdint>
#include <exception>
#include <iomanip>
#include <iostream>
#include <string_view>
#include <vector>

#include "mixtral.hpp"

namespace {

// A line for each layer: which percentage of its tokens' choices fell on each expert.
void print_experts(const mixtral::c::Context& context) {
  const std::vector<std::uint64_t> counts = context.routing_counts();  // [n_layers, n_experts]
  const auto n_experts = static_cast<std::size_t>(context.info().n_experts);
  std::cout << "\n\nshare of each expert (%)\n";
  for (std::size_t begin = 0; begin < counts.size(); begin += n_experts) {
    std::uint64_t total = 0;
    for (std::size_t e = 0; e < n_experts; ++e) total += counts[begin + e];
    std::cout << "layer " << begin / n_experts << ":";
    for (std::size_t e = 0; e < n_experts; ++e) {
      std::cout << std::setw(4) << (100 * counts[begin + e] + total / 2) / total;
    }
    std::cout << "\n";
  }
}

void run(const char* path) {
  const mixtral::c::Context context(path);
  mixtral::c::Session session(context);
  auto sampler = mixtral::c::Session::sampler_defaults();
  sampler.temperature = 0;  // greedy
  session.set_sampler(sampler);
  session.feed(context.tokenize("RETURN VALUE\n       On success,"));

  mixtral::c::GenerateOptions options;
  options.max_tokens = 48;
  options.on_token = [](std::int32_t, std::string_view text) {
    return static_cast<bool>(std::cout << text
                                       << std::flush);  // false stops; an exception would come out of generate()
  };
  session.generate(options);
  print_experts(context);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc > 1 ? argv[1] : "examples/models/tiny");
  } catch (const std::exception& error) {  // mixtral::c::Error, which has a status, and std::bad_alloc
    std::cerr << error.what() << "\n";
    return 1;
  }
}
