// A host of mixtral::core, the C++ library: the same as main.c.
#include <iostream>
#include <mixtral/core/executor.hpp>
#include <mixtral/io/huggingface.hpp>
#include <mixtral/runtime/generate.hpp>
#include <mixtral/runtime/loaded_model.hpp>

int main(int argc, char** argv) {
  using namespace mixtral;
  if (argc != 4) return 2;
  const Tokenizer tokenizer = Tokenizer::load(argv[1]);
  SerialExecutor thread;
  const LoadedModel model(load_huggingface(argv[1]).model, make_table(best_isa()), thread);
  Session session(model);
  session.feed(model.config().bos_id);
  session.feed(tokenizer.encode(argv[2]));
  GenerateOptions options;
  options.max_tokens = std::stoi(argv[3]);
  options.sampler.temperature = 0;
  options.on_token = [](TokenId, std::string_view text) { return static_cast<bool>(std::cout << text); };
  generate(session, &tokenizer, options);
  std::cout << "\n";
}
