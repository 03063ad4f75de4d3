#include "mixtral/core/available_memory.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <limits>
#include <string_view>

namespace mixtral {
namespace {

constexpr Index kUnknown = std::numeric_limits<Index>::max();

// The first bytes of a small file; empty: none.
struct SmallFile {
  explicit SmallFile(const char* path) noexcept {
    const int file = ::open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    const ssize_t got = ::read(file, text, sizeof text);
    size = got < 0 ? 0 : static_cast<std::size_t>(got);
    ::close(file);
  }
  std::string_view view() const noexcept { return {text, size}; }

  char text[4096];
  std::size_t size = 0;
};

Index number_in(std::string_view text) noexcept {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  Index number = kUnknown;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && number >= 0 ? number : kUnknown;
}

Index number_after(std::string_view key, const SmallFile& file) noexcept {
  const std::size_t at = file.view().find(key);
  return at == std::string_view::npos ? kUnknown : number_in(file.view().substr(at + key.size()));
}

// Linux, in KiB.
Index available_to_all() noexcept {
  const Index kib = number_after("MemAvailable:", SmallFile("/proc/meminfo"));
  return kib > kUnknown / 1024 ? kUnknown : kib * 1024;
}

// Of the group that a container's processes see as theirs; "max" is no number. What it has of files can be given back.
Index left_of_group() noexcept {
  const Index most = number_in(SmallFile("/sys/fs/cgroup/memory.max").view());
  const Index used = number_after("anon", SmallFile("/sys/fs/cgroup/memory.stat"));
  return most == kUnknown || used == kUnknown ? kUnknown : std::max<Index>(most - used, 0);
}

// Of the process's own limit of addresses.
Index left_of_addresses() noexcept {
  rlimit limit{};
  const Index pages = number_in(SmallFile("/proc/self/statm").view());
  if (::getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || pages == kUnknown) return kUnknown;
  const auto most = static_cast<Index>(std::min<rlim_t>(limit.rlim_cur, static_cast<rlim_t>(kUnknown)));
  return std::max<Index>(most - pages * static_cast<Index>(::sysconf(_SC_PAGESIZE)), 0);
}

}  // namespace

Index available_memory() noexcept { return std::min({available_to_all(), left_of_group(), left_of_addresses()}); }

}  // namespace mixtral
