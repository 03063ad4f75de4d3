// What a target says when the library breaks a promise: the sentence on stderr, then abort(), which libFuzzer and
// ctest both notice.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

namespace mixtral::fuzz {

inline const char* subject = "";  // what is being tried

[[noreturn]] inline void broken(const std::string& promise) {
  std::fprintf(stderr, "broken promise: %s: %s\n", subject, promise.c_str());
  std::abort();
}

inline void expect(bool kept, const char* promise) {
  if (!kept) broken(promise);
}

}  // namespace mixtral::fuzz
