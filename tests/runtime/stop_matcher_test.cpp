#include "mixtral/runtime/stop_matcher.hpp"

#include <doctest/doctest.h>

#include <random>

#include "mixtral/core/error.hpp"

using namespace mixtral;

TEST_CASE("stop matcher: text is held back only while it may begin a stop string") {
  StopMatcher stops({"END", "\n\n"});
  CHECK(stops.push("abc") == "abc");
  CHECK(stops.push("dE") == "d");
  CHECK(stops.push("N") == "");
  CHECK(stops.push("X\n") == "ENX");
  CHECK(stops.flush() == "\n");
  CHECK_FALSE(stops.stopped());
}

TEST_CASE("stop matcher: the earliest stop string ends the text, whatever follows") {
  StopMatcher stops({"world", "lo"});
  CHECK(stops.push("hello world") == "hel");
  CHECK(stops.stopped());
  CHECK(stops.push("more") == "");
  CHECK(stops.flush() == "");
}

TEST_CASE("stop matcher: how the text is cut changes nothing") {
  std::mt19937 random(3);
  for (int i = 0; i < 2000; ++i) {
    std::string text, whole, joined;
    for (int k = 0; k < 24; ++k) text += static_cast<char>('a' + random() % 2);
    const std::vector<std::string> strings = {"abba", "bbbb", "aaaaab"};
    StopMatcher once(strings), often(strings);
    whole = once.push(text);
    whole += once.flush();
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t n = 1 + random() % 4;
      joined += often.push(text.substr(at, n));
      at += n;
    }
    joined += often.flush();
    CHECK(joined == whole);
    CHECK(once.stopped() == often.stopped());
    std::size_t first = std::string::npos;
    for (const std::string& s : strings) first = std::min(first, text.find(s));
    CHECK(whole == text.substr(0, first));
  }
}

TEST_CASE("stop matcher: an empty stop string is refused") { CHECK_THROWS_AS(StopMatcher({"x", ""}), Error); }
