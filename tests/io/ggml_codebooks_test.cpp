#include "io/ggml_codebooks.hpp"

#include <doctest/doctest.h>

#include <string_view>

#include "support/golden.hpp"

using namespace mixtral;

namespace {

SafetensorsFile code_books() { return SafetensorsFile(test::golden_dir() / "gguf_iq/iq_codebooks.safetensors"); }

// `added` is what the library's values have more than those of the file.
template <class Rows>
void check_rows(const Rows& rows, std::string_view name, int added = 0) {
  constexpr std::size_t kValues = sizeof(rows[0]);
  const SafetensorsFile file = code_books();
  const auto data = file.at(name).data;
  REQUIRE(data.size() == rows.size() * kValues);
  Index wrong = 0;
  for (std::size_t i = 0; i < data.size(); ++i) {
    const auto want = static_cast<std::uint8_t>(static_cast<int>(data[i]) + added);
    wrong += static_cast<std::uint8_t>(rows[i / kValues] >> 8 * (i % kValues)) != want;
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("the code books are those of the golden data") {
  check_rows(kIq2XxsRows, "iq2xxs");
  check_rows(kIq2XsRows, "iq2xs");
  check_rows(kIq2SRows, "iq2s");
  check_rows(kIq3XxsRows, "iq3xxs");
  check_rows(kIq3SRows, "iq3s");
  check_rows(kIq1Rows, "iq1s", 1);
}

TEST_CASE("seven bits of signs have an eighth that makes the number of minuses even") {
  const SafetensorsFile file = code_books();
  const auto want = file.at("ksigns").data;
  REQUIRE(want.size() == 128);
  for (std::uint32_t i = 0; i < 128; ++i) CHECK(signs_of(i) == static_cast<std::uint8_t>(want[i]));
}

TEST_CASE("IQ4 codes have the values of the golden data") {
  const SafetensorsFile file = code_books();
  const auto want = file.at("kvalues_iq4nl").data;
  REQUIRE(want.size() == kIq4Values.size());
  for (std::size_t i = 0; i < want.size(); ++i) CHECK(kIq4Values[i] == static_cast<std::int8_t>(want[i]));
}
