// Versions, names of the statuses, the text of the last error.
#include "status.hpp"

#include <algorithm>
#include <iterator>

namespace mixtral::capi {
namespace {

thread_local char last_error[kErrorBytes] = "";

}  // namespace

void set_last_error(std::string_view text) noexcept {
  std::size_t size = std::min(text.size(), sizeof last_error - 1);
  if (size < text.size()) {
    while (size > 0 && (text[size] & 0xC0) == 0x80) --size;  // no half character at the end
  }
  *std::copy_n(text.data(), size, last_error) = '\0';
}

}  // namespace mixtral::capi

using mixtral::capi::last_error;

uint32_t mixtral_version(void) { return MIXTRAL_VERSION; }

#define MIXTRAL_TEXT(x) #x
#define MIXTRAL_JOIN(major, minor, patch) MIXTRAL_TEXT(major) "." MIXTRAL_TEXT(minor) "." MIXTRAL_TEXT(patch)
const char* mixtral_version_text(void) {
  return MIXTRAL_JOIN(MIXTRAL_VERSION_MAJOR, MIXTRAL_VERSION_MINOR, MIXTRAL_VERSION_PATCH);
}

const char* mixtral_status_text(mixtral_status status) {
  static constexpr const char* kTexts[] = {"ok",         "invalid argument", "not found",     "input/output error",
                                           "bad format", "unsupported",      "out of memory", "context full",
                                           "cancelled",  "internal error",   "busy",          "buffer too small"};
  return status >= 0 && status < static_cast<mixtral_status>(std::size(kTexts)) ? kTexts[status] : "unknown status";
}

const char* mixtral_last_error(void) { return last_error; }
