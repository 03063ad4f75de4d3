#include "mixtral/io/ggml_type.hpp"

#include <doctest/doctest.h>

using namespace mixtral;

TEST_CASE("a type is found by the format's number") {
  for (const GgmlTypeInfo& info : kGgmlTypes) {
    CAPTURE(info.name);
    CHECK(find_ggml_type(static_cast<std::uint32_t>(info.type)) == &info);
    CHECK(&info_of(info.type) == &info);
    CHECK(name_of(info.type) == info.name);
  }
  CHECK(find_ggml_type(12)->name == "Q4_K");
  CHECK(find_ggml_type(18)->name == "IQ3_XXS");
  CHECK(find_ggml_type(29)->name == "IQ1_M");
}

TEST_CASE("numbers that were given up, integers and what is not yet known are no types") {
  for (const std::uint32_t number : {4u, 5u, 9u, 15u, 24u, 25u, 26u, 27u, 28u, 31u, 39u, 255u, 0xffffffffu}) {
    CAPTURE(number);
    CHECK(find_ggml_type(number) == nullptr);
  }
}

TEST_CASE("a block has 32 or 256 weights, or is one number") {
  for (const GgmlTypeInfo& info : kGgmlTypes) {
    CAPTURE(info.name);
    CHECK((info.block_weights == 1 || info.block_weights == 32 || info.block_weights == 256));
    CHECK(info.block_bytes * 8 > info.block_weights);  // more than a bit
    CHECK(info.block_bytes <= 4 * info.block_weights);
  }
}
