#include "common.hpp"

#include <sched.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>

#include "mixtral/core/error.hpp"
#include "mixtral/runtime/isa.hpp"

namespace mixtral::cli {
namespace {

namespace fs = std::filesystem;

// In the build tree as in an installation.
fs::path embedded_model() {
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  return (program.parent_path() / "../share/mixtral/models/tiny").lexically_normal();
}

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

int available_threads() {
  cpu_set_t allowed;
  const int n_cpus = ::sched_getaffinity(0, sizeof allowed, &allowed) == 0 ? CPU_COUNT(&allowed) : 1;
  const double quota = cpu_quota();
  return quota < n_cpus ? std::max(1, static_cast<int>(std::floor(quota))) : n_cpus;
}

}  // namespace

void add_common_options(CLI::App& command, CommonOptions& options) {
  options.model = embedded_model();
  options.threads = available_threads();
  command.add_option("--model", options.model, "Directory of the model (default: the tiny model of this program)")
      ->type_name("PATH");
  command.add_option("--threads", options.threads, "Threads (default: the CPUs this process may use)")
      ->check(CLI::Range(1, 1024));
  std::vector<std::string> isa_names;
  for (const Isa isa : all_isas()) isa_names.emplace_back(name_of(isa));
  command.add_option("--isa", options.isa, "Use no better instruction set than this one")
      ->check(CLI::IsMember(isa_names));
  command.add_flag("--json", options.json, "Answer in JSON");
}

CLI::Option* add_ids_option(CLI::App& command, std::vector<TokenId>& ids, const std::string& description) {
  // The command-line library would read an empty argument as 0.
  const auto not_empty = [](const std::string& id) { return std::string(id.empty() ? "an id is empty" : ""); };
  return command.add_option("--ids", ids, description)->delimiter(',')->check(not_empty);
}

std::string read_stdin() {
  std::string bytes;
  char block[1 << 16];
  while (const std::size_t n = std::fread(block, 1, sizeof block, stdin)) bytes.append(block, n);
  require(std::ferror(stdin) == 0, ErrorCode::kIo, "stdin: cannot read after ", bytes.size(), " bytes");
  return bytes;
}

void write_stdout(std::string_view bytes) {
  const bool written = std::fwrite(bytes.data(), 1, bytes.size(), stdout) == bytes.size() && std::fflush(stdout) == 0;
  require(written, ErrorCode::kIo, "stdout: cannot write ", bytes.size(), " bytes");
}

}  // namespace mixtral::cli
