#include "mixtral/core/float_environment.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <memory>
#include <stdexcept>

#include "support/contexts.hpp"
#include "support/float_environments.hpp"

using namespace mixtral;
using detail::FloatState;

namespace {

// Numbers that every environment but the usual one computes otherwise; volatile, so that the compiler does not.
struct Probes {
  volatile float third = 3, tiny = 1e-40f, huge = 3e38f;

  std::vector<float> operator()() const {
    return {1 / third, -1 / third, tiny * 0.5f, tiny + tiny, huge * huge, std::sqrt(third)};
  }
};

}  // namespace

TEST_CASE("a float scope computes alike in any environment, and leaves control bits and flags as they were") {
  const Probes probes;
  test::check_in_every_float_environment([&] {
    const FloatScope floats;
    return probes();
  });
  test::check_in_every_float_environment([&] {
    try {
      const FloatScope floats;
      probes();
      throw std::runtime_error("in the middle");
    } catch (const std::runtime_error&) {
      return true;
    }
  });
}

TEST_CASE("inside a float scope the host's environment can be had for a while") {
  for (const test::NamedFloatState& host : test::float_environments()) {
    CAPTURE(host.name);
    FloatState before, outside, inside;
    {
      const test::HostFloats floats(host.state);
      const FloatScope ours;
      before = FloatState::read();
      {
        const FloatScope theirs = FloatScope::outside(ours);
        outside = FloatState::read();
      }
      inside = FloatState::read();
    }
    CHECK(outside.computes_as(host.state));
    CHECK((inside == before));
    CHECK(before.computes_as(FloatState{}));
  }
}

TEST_CASE("on every executor, tasks compute alike in any environment of their caller and of its workers") {
  const Probes probes;
  const auto want = probes();
  test::check_in_every_float_environment([&] {
    Index same = 0;
    test::for_each_executor([&](Executor& e) {  // whose threads begin in this environment
      std::vector<char> as_wanted(200);
      const auto run = [&](Executor& executor) {
        executor.parallel_for(200, [&](Index i, int) { as_wanted[static_cast<std::size_t>(i)] = probes() == want; });
        for (const char yes : as_wanted) same += yes;
      };
      run(e);
      e.run_team(run);
    });
    return same;
  });
}
