#include "mixtral/core/error.hpp"

#include <doctest/doctest.h>

#include "support/error_of.hpp"

using namespace mixtral;

TEST_CASE("str concatenates texts, characters and numbers of any type") {
  CHECK(str() == "");
  CHECK(str("a", std::string("b"), std::string_view("c"), 'd') == "abcd");
  CHECK(str(-1, " ", 2u, " ", std::int64_t{-9223372036854775807} - 1, " ", std::uint8_t{7}) ==
        "-1 2 -9223372036854775808 7");
  CHECK(str(0.1f, " ", 1e-5, " ", -1e300) == "0.1 1e-05 -1e+300");
}

TEST_CASE("require throws an Error with code and text, and nothing when the condition holds") {
  CHECK_NOTHROW(require(true, "never"));
  const Error plain = test::error_of([] { require(false, "w1: ", 3, " of ", 4); });
  CHECK(plain.code() == ErrorCode::kInvalidArgument);
  CHECK(std::string(plain.what()) == "w1: 3 of 4");
  const Error coded = test::error_of([] { require(false, ErrorCode::kBadFormat, "header"); });
  CHECK(coded.code() == ErrorCode::kBadFormat);
  CHECK(std::string(coded.what()) == "header");
}

TEST_CASE("no terminal obeys a message, whatever name of a file's stands in it") {
  const Error error = test::error_of([] { fail(ErrorCode::kBadFormat, "w\x1B[2J\n", ": \xFF"); });
  CHECK(std::string(error.what()) == "w\\x1b[2J\\x0a: \\xff");
}

TEST_CASE("error codes keep their numbers") {
  CHECK(static_cast<int>(ErrorCode::kInvalidArgument) == 1);
  CHECK(static_cast<int>(ErrorCode::kNotFound) == 2);
  CHECK(static_cast<int>(ErrorCode::kIo) == 3);
  CHECK(static_cast<int>(ErrorCode::kBadFormat) == 4);
  CHECK(static_cast<int>(ErrorCode::kUnsupported) == 5);
  CHECK(static_cast<int>(ErrorCode::kOutOfMemory) == 6);
  CHECK(static_cast<int>(ErrorCode::kContextFull) == 7);
  CHECK(static_cast<int>(ErrorCode::kCancelled) == 8);
  CHECK(static_cast<int>(ErrorCode::kInternal) == 9);
}
