// Runs something that must fail and gives back the Error.
#pragma once

#include <doctest/doctest.h>

#include <string>
#include <utility>

#include "mixtral/core/error.hpp"

namespace mixtral::test {

// Fails the test and gives back an error without text if nothing or something else was thrown.
template <class F>
Error error_of(F&& action) {
  try {
    std::forward<F>(action)();
  } catch (const Error& error) {
    return error;
  } catch (const std::exception& error) {
    FAIL_CHECK("expected an Error, got: ", std::string(error.what()));
    return {ErrorCode::kInternal, ""};
  }
  FAIL_CHECK("expected an Error, nothing was thrown");
  return {ErrorCode::kInternal, ""};
}

inline bool names(const Error& error, const std::string& part) {
  const bool found = std::string(error.what()).find(part) != std::string::npos;
  if (!found) MESSAGE("not in the message: \"", part, "\"; the message: ", std::string(error.what()));
  return found;
}

}  // namespace mixtral::test
