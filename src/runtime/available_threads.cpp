#include "mixtral/runtime/available_threads.hpp"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>

#include "mixtral/core/float_environment.hpp"

namespace mixtral {
namespace {

namespace fs = std::filesystem;

// The part of a CPU quota that one control group grants, in CPUs; infinity without a quota.
double quota_of(const fs::path& group) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  double quota = 0, period = 0;
  if (std::ifstream(group / "cpu.max") >> quota >> period && period > 0) return quota / period;  // version 2
  const bool has_quota = static_cast<bool>(std::ifstream(group / "cpu.cfs_quota_us") >> quota);  // version 1
  const bool has_period = static_cast<bool>(std::ifstream(group / "cpu.cfs_period_us") >> period);
  return has_quota && has_period && quota > 0 && period > 0 ? quota / period : kNone;
}

// The smallest quota of the control groups around this process.
double cpu_quota() {
  double quota = std::min(quota_of("/sys/fs/cgroup"), quota_of("/sys/fs/cgroup/cpu"));
  std::ifstream groups("/proc/self/cgroup");  // lines "0::/a/b" or "4:cpu,cpuacct:/a/b"
  for (std::string line; std::getline(groups, line);) {
    const std::size_t controllers = line.find(':') + 1;
    const std::size_t path = line.find(':', controllers) + 1;
    if (controllers == 0 || path == 0) continue;
    const std::string_view names = std::string_view(line).substr(controllers, path - 1 - controllers);
    if (!names.empty() && names.find("cpu") == names.npos) continue;
    fs::path group = fs::path(line.substr(path)).relative_path();
    for (; !group.empty(); group = group.parent_path()) {
      quota = std::min({quota, quota_of("/sys/fs/cgroup" / group), quota_of("/sys/fs/cgroup/cpu" / group)});
    }
  }
  return quota;
}

}  // namespace

int available_threads() {
  cpu_set_t allowed;
  const int n_cpus = ::sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
  const FloatScope floats;
  const double quota = cpu_quota();
  return quota < n_cpus ? std::max(1, static_cast<int>(std::floor(quota))) : n_cpus;
}

}  // namespace mixtral
