// Hostile checkpoints by the thousand: whatever the bytes, loading ends in a model or in an Error.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "mixtral/core/error.hpp"
#include "mixtral/io/checkpoint.hpp"
#include "mixtral/ops/isa.hpp"
#include "mixtral/runtime/session.hpp"
#include "support/allocations.hpp"
#include "support/checkpoint_files.hpp"
#include "support/consolidated_files.hpp"
#include "support/golden.hpp"
#include "support/temp_dir.hpp"

using namespace mixtral;
using test::Files;

namespace {

constexpr std::size_t kLargestAllocation = std::size_t{64} << 20;

// What a loaded model must survive: every byte of every weight is used. Broken numbers may end in an Error.
void run_step(const Checkpoint& checkpoint) {
  static const KernelTable table = make_table(best_isa());
  SerialExecutor executor;
  const LoadedModel loaded(checkpoint.model, table, executor);
  Session session(loaded, {.max_positions = std::min<Index>(checkpoint.model.config.max_positions, 64)});
  session.feed(0);
  if (session.max_positions() > 1) session.feed(static_cast<TokenId>(checkpoint.model.config.vocab_size - 1));
  try {
    session.eval();
    CHECK(static_cast<Index>(session.logits().size()) == checkpoint.model.config.vocab_size);
  } catch (const Error& error) {  // logits of the router that are no numbers
    CHECK(std::string_view(error.what()).find("router: ") == 0);
  }
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  // In [0, n).
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(engine_() % n); }
  bool chance(std::size_t percent) { return below(100) < percent; }
  template <class Items>
  const auto& pick(const Items& items) {
    return items[below(std::size(items))];
  }

 private:
  std::mt19937_64 engine_;
};

constexpr std::string_view kExtremes[] = {
    "0",
    "-1",
    "1",
    "2",
    "3",
    "65535",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1000000000000000000000000000000",
    "-9223372036854775809",
    "0.5",
    "1e308",
    "1e309",
    "-0",
    "1e-320",
    "NaN",
    "null",
    "true",
    "\"8\"",
    "[]",
    "{}",
    "[[]]",
    "[1,2,3]",
    "{\"rope_theta\":1}",
    "\"\"",
};

// The begin of a number, of a quoted text: where mutations of JSON do most.
std::vector<std::size_t> places_of(const std::string& text, bool digits) {
  std::vector<std::size_t> places;
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool here = digits ? is_digit(text[i]) && (i == 0 || !is_digit(text[i - 1])) : text[i] == '"';
    if (here) places.push_back(i);
  }
  return places;
}

// One change of a JSON text.
void mutate_json(std::string& text, Random& random) {
  if (text.empty()) return;
  const std::size_t at = random.below(text.size());
  const std::size_t length = std::min(text.size() - at, 1 + random.below(80));
  const std::vector<std::size_t> numbers = places_of(text, true), quotes = places_of(text, false);
  switch (random.below(9)) {
    case 0: text[at] = static_cast<char>(text[at] ^ (1 << random.below(8))); return;
    case 1: text[at] = static_cast<char>(random.below(256)); return;
    case 2: text.resize(at); return;
    case 3: text.insert(random.below(text.size()), text.substr(at, length)); return;
    case 4: text.erase(at, length); return;
    case 5:  // another number
    case 6: {
      if (numbers.empty()) return;
      const std::size_t begin = random.pick(numbers);
      const std::size_t end = std::min(text.find_first_not_of("0123456789.e+-", begin), text.size());
      text.replace(begin, end - begin, random.pick(kExtremes));
      return;
    }
    case 7: {  // one digit
      if (numbers.empty()) return;
      text[random.pick(numbers)] = static_cast<char>('0' + random.below(10));
      return;
    }
    default: {  // a member again, or gone
      if (quotes.empty()) return;
      const std::size_t begin = random.pick(quotes);
      const std::size_t comma = text.find(',', begin);
      const std::string member = text.substr(begin, comma == std::string::npos ? comma : comma + 1 - begin);
      if (random.chance(50)) {
        text.insert(begin, member);
      } else {
        text.erase(begin, member.size());
      }
    }
  }
}

void mutate_header(std::string& file, Random& random) {
  const auto length = static_cast<std::size_t>(test::header_bytes(file));
  std::string header = file.substr(8, length);
  mutate_json(header, random);
  const std::string data = file.substr(8 + length);
  // Mostly with its new length: a wrong one hides everything behind it.
  file = random.chance(85) ? test::with_header(header, data) : file.substr(0, 8) + header + data;
}

// A change that leaves the JSON alone.
void mutate_data(std::string& file, Random& random) {
  const auto data = static_cast<std::size_t>(8 + test::header_bytes(file));
  switch (random.below(6)) {
    case 0: file.resize(random.below(file.size())); return;
    case 1: file.append(1 + random.below(100), 'x'); return;
    case 2: file[random.below(8)] = static_cast<char>(random.below(256)); return;
    case 3: file.erase(data, 1 + random.below(64)); return;
    case 4: {  // infinities and NaNs as weights
      const std::size_t at = data + random.below(file.size() - data);
      std::fill(file.begin() + static_cast<std::ptrdiff_t>(at),
                file.begin() + static_cast<std::ptrdiff_t>(std::min(file.size(), at + 64)), '\xff');
      return;
    }
    default:
      for (int i = 0; i < 16; ++i) file[data + random.below(file.size() - data)] = static_cast<char>(random.below(256));
  }
}

struct Mutation {
  std::string file;
  bool of_json;
};

// Changes one file of `files`, mostly once: the first fault hides all others.
Mutation mutate(Files& files, Random& random) {
  std::vector<std::string> names;
  for (const auto& [name, contents] : files) names.push_back(name);
  Mutation mutation{random.pick(names), true};
  const bool weights = mutation.file.ends_with(".safetensors");
  mutation.of_json = !weights || random.chance(65);
  std::string& contents = files[mutation.file];
  for (std::size_t n = random.chance(80) ? 1 : 3; n > 0; --n) {
    if (!weights) {
      mutate_json(contents, random);
    } else if (contents.size() < 8 || 8 + test::header_bytes(contents) >= contents.size()) {
      return mutation;  // an earlier change left nothing to change
    } else if (mutation.of_json) {
      mutate_header(contents, random);
    } else {
      mutate_data(contents, random);
    }
  }
  return mutation;
}

Files malformed(const char* name) { return test::read_dir(test::golden_dir() / "malformed_hf" / name); }

// As a new file: file systems write an old one that is cut to zero to the disk at once, and wait for it.
void replace_file(const std::filesystem::path& path, std::string_view contents) {
  std::filesystem::remove(path);
  test::write_text(path, contents);
}

// Changes files of one checkpoint at a time, each time from the original, and loads it.
void load_mutations(const std::vector<Files>& originals, int n_mutations, std::uint64_t seed) {
  std::vector<test::TempDir> dirs(originals.size());
  for (std::size_t i = 0; i < dirs.size(); ++i) {
    test::write_dir(dirs[i].path(), originals[i]);
    REQUIRE_NOTHROW(run_step(load_checkpoint(dirs[i].path())));
  }
  Random random(seed);
  int n_json = 0, n_loaded = 0, n_rejected = 0, n_unnamed = 0;
  std::size_t largest = 0;
  for (int i = 0; i < n_mutations; ++i) {
    const std::size_t base = random.below(originals.size());
    Files files = originals[base];
    const Mutation mutation = mutate(files, random);
    CAPTURE(i);
    CAPTURE(mutation.file);
    n_json += mutation.of_json ? 1 : 0;
    replace_file(dirs[base] / mutation.file, files[mutation.file]);
    const test::AllocationWatch watch(kLargestAllocation);
    try {
      run_step(load_checkpoint(dirs[base].path()));
      ++n_loaded;
    } catch (const Error& error) {
      ++n_rejected;
      if (std::string_view(error.what()).find(dirs[base].path().string()) != 0) {
        ++n_unnamed;
        MESSAGE(std::string(error.what()));
      }
    } catch (const std::exception& error) {
      FAIL_CHECK("not an Error: ", std::string(error.what()));
    }
    largest = std::max(largest, watch.largest());
    replace_file(dirs[base] / mutation.file, originals[base].at(mutation.file));
  }
  MESSAGE(n_rejected, " rejected, ", n_loaded, " loaded, ", n_json, " of ", n_mutations,
          " changed JSON; largest allocation ", largest, " bytes");
  CHECK(n_rejected + n_loaded == n_mutations);
  CHECK(n_json >= n_mutations * 7 / 10);
  CHECK(n_rejected > n_mutations / 4);
  CHECK(n_loaded > n_mutations / 20);
  CHECK(n_unnamed == 0);
  CHECK(largest > 0);
  CHECK(largest <= kLargestAllocation);
}

}  // namespace

TEST_CASE("ten thousand mutated checkpoints each load and run or are refused with an Error that names a file") {
  Files base = malformed("_base");
  base["generation_config.json"] = R"({"bos_token_id": 1, "eos_token_id": [2, 3]})";
  load_mutations({base, malformed("legal_fused_experts"), test::sharded(base, 2)}, 10'000, 20240101);
}

TEST_CASE("three thousand mutated consolidated checkpoints load and run or are refused like others") {
  const Files base = test::consolidated(malformed("_base"));
  Files without_index = test::sharded(base, 2, "consolidated");
  without_index.erase("consolidated.safetensors.index.json");
  load_mutations({base, test::sharded(base, 3, "consolidated"), without_index}, 3'000, 20240102);
}
