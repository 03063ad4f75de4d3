// Plays random sequences of C ABI calls and says how often each function gave each status:
//   mixtral_capi_sequences [--count N] [--seed N] [--first N] [--save FILE]
// Fails unless every function of mixtral.h was called and every status was seen. A failure names the sequence;
// `--first THAT --count 1 --save FILE` plays it alone and leaves its bytes in FILE, for the corpus.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "capi_sequence.hpp"
#include "mixtral/core/file.hpp"
#include "support/temp_dir.hpp"

namespace {

using namespace mixtral;
using namespace mixtral::fuzz;

struct Options {
  std::uint64_t count = 1000, seed = 1, first = 0;
  std::string save;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (name == "--count") options.count = std::stoull(value);
    if (name == "--seed") options.seed = std::stoull(value);
    if (name == "--first") options.first = std::stoull(value);
    if (name == "--save") options.save = value;
  }
  return options;
}

std::uint64_t running = 0, seed = 0;

extern "C" void name_sequence(int) {
  std::fprintf(stderr, "in sequence %llu of seed %llu\n", static_cast<unsigned long long>(running),
               static_cast<unsigned long long>(seed));
}

std::vector<std::uint8_t> sequence(std::uint64_t index) {
  std::seed_seq mixed{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                      static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32)};
  std::mt19937_64 random(mixed);
  std::vector<std::uint8_t> bytes(32 + random() % 480);
  for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
  return bytes;
}

// Functions that the header declares and no sequence calls.
std::size_t forgotten() {
  const std::string header = read_file(MIXTRAL_HEADER, Index{1} << 20);
  std::set<std::string> known;
  for (const FunctionInfo& f : kFunctions) known.insert(f.name);
  std::size_t missing = 0, declared = 0;
  const std::regex declaration(R"(MIXTRAL_API [^;(]*?(mixtral_\w+)\()");
  for (std::sregex_iterator i(header.begin(), header.end(), declaration), end; i != end; ++i, ++declared) {
    if (known.count((*i)[1]) > 0) continue;
    std::printf("never called: %s\n", (*i)[1].str().c_str());
    ++missing;
  }
  return declared == known.size() ? missing : missing + 1;
}

// Prints the table; returns how many functions and statuses did not occur.
std::size_t report(const Counts& counts) {
  std::size_t missing = 0;
  std::uint64_t calls = 0;
  std::array<std::uint64_t, kStatuses> of_status{};
  for (std::size_t f = 0; f < counts.size(); ++f) {
    std::uint64_t sum = 0;
    std::string detail;
    for (std::size_t s = 0; s < kStatuses; ++s) {
      sum += counts[f][s];
      of_status[s] += counts[f][s];
      if (counts[f][s] == 0) continue;
      detail += std::string(detail.empty() ? "" : ", ") + mixtral_status_text(static_cast<mixtral_status>(s)) + " " +
                std::to_string(counts[f][s]);
    }
    std::printf("%-38s %9llu  %s\n", kFunctions[f].name, static_cast<unsigned long long>(sum), detail.c_str());
    calls += sum;
    missing += sum == 0 ? 1 : 0;
  }
  for (std::size_t s = 0; s < kStatuses; ++s) {
    std::printf("%-38s %9llu\n", mixtral_status_text(static_cast<mixtral_status>(s)),
                static_cast<unsigned long long>(of_status[s]));
    missing += of_status[s] == 0 ? 1 : 0;
  }
  std::printf("%llu calls\n", static_cast<unsigned long long>(calls));
  return missing;
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  seed = options.seed;
  std::signal(SIGABRT, name_sequence);
  Counts counts{};
  for (std::uint64_t i = 0; i < options.count; ++i) {
    running = options.first + i;
    const std::vector<std::uint8_t> bytes = sequence(running);
    if (!options.save.empty()) {
      test::write_text(options.save, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    }
    play(bytes, counts);
  }
  const std::size_t missing = report(counts) + forgotten();
  std::printf("%llu sequences played, %zu functions or statuses did not occur\n",
              static_cast<unsigned long long>(options.count), missing);
  return missing == 0 || options.count == 1 ? 0 : 1;
}
