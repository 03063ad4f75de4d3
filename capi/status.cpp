// Versions, names of the statuses, the text of the last error.
#include "status.hpp"

#include <algorithm>
#include <iterator>

namespace mixtral::capi {
namespace {

thread_local char last_error[kErrorBytes] = "";

// Whether the byte at `at` goes on with a UTF-8 character that began before it.
bool inside_character(std::string_view text, std::size_t at) noexcept { return (text[at] & 0xC0) == 0x80; }

}  // namespace

// What is too long is most often a path. It stands before the reason, which stands at the end: the middle is left out,
// and no character is cut (of bytes that are no UTF-8, at most three more are lost on each side).
void set_last_error(std::string_view text) noexcept {
  constexpr std::string_view kGap = "...";
  constexpr std::size_t kHead = 300, kTail = 700;
  static_assert(kHead + kGap.size() + kTail < kErrorBytes);
  if (text.size() < kErrorBytes) {
    *std::copy_n(text.data(), text.size(), last_error) = '\0';
    return;
  }
  std::size_t head = kHead, tail = text.size() - kTail;
  while (head > kHead - 3 && inside_character(text, head)) --head;
  while (tail < text.size() - kTail + 3 && inside_character(text, tail)) ++tail;
  char* end = std::copy_n(text.data(), head, last_error);
  end = std::copy_n(kGap.data(), kGap.size(), end);
  *std::copy(text.begin() + static_cast<std::ptrdiff_t>(tail), text.end(), end) = '\0';
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
