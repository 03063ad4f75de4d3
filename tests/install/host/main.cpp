// A host in C++ of the installed C ABI: the same as main.c, by a generation with a callback.
#include <iostream>
#include <mixtral.hpp>
#include <string>

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  try {
    const mixtral::c::Context context(argv[1]);
    mixtral::c::Session session(context);
    auto greedy = mixtral::c::Session::sampler_defaults();
    greedy.temperature = 0;
    session.set_sampler(greedy);
    session.feed(context.tokenize(argv[2]));
    mixtral::c::GenerateOptions options;
    options.max_tokens = std::stoi(argv[3]);
    options.on_token = [](std::int32_t, std::string_view text) { return static_cast<bool>(std::cout << text); };
    session.generate(options);
    std::cout << "\n";
  } catch (const mixtral::c::Error& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}
