// A host in C++ of the installed C ABI: the same as main.c, by a generation with a callback.
#include <mixtral.h>

#include <iostream>
#include <string>
#include <string_view>
#include <vector>

namespace {

void check(mixtral_status status) {
  if (status != MIXTRAL_OK) throw std::string(mixtral_last_error());
}

int32_t print(void*, int32_t, const char* text, size_t size) {
  return std::cout << std::string_view(text, size) ? 0 : 1;
}

void run(std::string_view model, std::string_view prompt, int n) {
  mixtral_ctx* ctx;
  check(mixtral_ctx_create(model.data(), model.size(), nullptr, &ctx));
  mixtral_session* session;
  check(mixtral_session_create(ctx, nullptr, &session));
  mixtral_sampler_params greedy;
  check(mixtral_sampler_params_init(&greedy, sizeof greedy));
  greedy.temperature = 0;
  check(mixtral_session_set_sampler(session, &greedy));

  size_t n_tokens;
  std::vector<int32_t> tokens(prompt.size() + 2);
  check(mixtral_tokenize(ctx, prompt.data(), prompt.size(), MIXTRAL_TOKENIZE_BOS, tokens.data(), tokens.size(),
                         &n_tokens));
  check(mixtral_session_feed(session, tokens.data(), n_tokens, 0));
  mixtral_generate_params options;
  check(mixtral_generate_params_init(&options, sizeof options));
  options.max_tokens = n;
  options.on_token = print;
  check(mixtral_session_generate(session, &options, nullptr));
  std::cout << "\n";
  mixtral_session_destroy(session);
  mixtral_ctx_destroy(ctx);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    run(argv[1], argv[2], std::stoi(argv[3]));
  } catch (const std::string& error) {
    std::cerr << error << "\n";
    return 1;
  }
}
