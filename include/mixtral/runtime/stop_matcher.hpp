// Stop strings in streamed text.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mixtral {

// Releases text as soon as it cannot be the beginning of a stop string any more.
class StopMatcher {
 public:
  // Throws Error(kInvalidArgument) on an empty stop string.
  explicit StopMatcher(std::vector<std::string> stops);

  // Takes more text and returns what is certain. Once a stop string has come, everything before it is
  // returned, `stopped` is true, and all further text is dropped.
  std::string push(std::string_view text);
  // The text ends: returns what was held back.
  std::string flush();
  bool stopped() const noexcept { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace mixtral
