#include "io/gguf_keys.hpp"

#include <doctest/doctest.h>

#include "support/error_of.hpp"

using namespace mixtral;

namespace {

GgufFile parsed(const std::string& bytes) { return GgufFile(std::as_bytes(std::span(bytes)), "file"); }

}  // namespace

TEST_CASE("each value that is written is read by the function of its name, also when it was copied") {
  const std::vector<std::string> texts = {"one", "", "three"};
  const std::vector<float> floats = {1.5f, -2};
  const std::vector<std::int32_t> integers = {-1, 7};
  GgufKeys keys;
  keys.integer("a.integer", 4294967295);
  keys.number("b.number", 0.1f);
  keys.boolean("c.boolean", true);
  keys.text("d.text", "caf\xC3\xA9");
  keys.texts("e.texts", texts);
  keys.floats("f.floats", floats);
  keys.integers("g.integers", integers);
  CHECK(keys.count() == 7);
  const std::string bytes = keys.header(0);
  GgufKeys copied;
  const GgufFile from = parsed(bytes);
  for (const GgufKey& key : from.keys()) copied.copy(key);
  CHECK(copied.header(0) == bytes);
  CHECK(from.integer("a.integer", 0, Index{1} << 40) == 4294967295);
  CHECK(from.number("b.number") == static_cast<double>(0.1f));
  CHECK(from.boolean("c.boolean") == true);
  CHECK(from.text("d.text") == "caf\xC3\xA9");
  CHECK(from.texts("e.texts") == std::vector<std::string_view>{"one", "", "three"});
  CHECK(from.floats("f.floats") == floats);
  CHECK(from.integers("g.integers") == std::vector<Index>{-1, 7});
}

TEST_CASE("an integer that no u32 holds is refused with its key") {
  GgufKeys keys;
  for (const Index value : {Index{-1}, Index{1} << 32}) {
    const Error error = test::error_of([&] { keys.integer("llama.x", value); });
    CHECK(error.code() == ErrorCode::kInvalidArgument);
    CHECK(test::names(error, str("GGUF: llama.x is ", value, ", expected 0 to 4294967295")));
  }
  CHECK(keys.count() == 0);
}
