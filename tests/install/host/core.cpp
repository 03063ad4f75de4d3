// A host of mixtral::core, the C++ library: the same as main.c.
#include <iostream>
#include <mixtral/core/executor.hpp>
#include <mixtral/io/huggingface.hpp>
#include <mixtral/runtime/generate.hpp>
#include <mixtral/ops/isa.hpp>

int main(int argc, char** argv) {
  using namespace mixtral;
  if (argc != 4) return 2;
  const Model model = load_huggingface(argv[1]);
  const Tokenizer tokenizer = Tokenizer::load(argv[1]);
  const KernelTable kernels = make_table(best_isa());
  SerialExecutor thread;
  Session session(model, kernels, thread);
  session.feed(model.config.bos_id);
  session.feed(tokenizer.encode(argv[2]));
  GenerateOptions options;
  options.max_tokens = std::stoi(argv[3]);
  options.sampler.temperature = 0;
  options.on_token = [](TokenId, std::string_view text) { return static_cast<bool>(std::cout << text); };
  generate(session, &tokenizer, options);
  std::cout << "\n";
}
