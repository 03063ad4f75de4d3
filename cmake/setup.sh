# shellcheck shell=bash
# Sourced by examples/quickstart.sh, tests/run.sh and .ci/run: packages, then presets.

project_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# All that building and testing need, by their Debian names. (The bench preset also needs libbenchmark-dev.)
packages=(
  g++ cmake ninja-build pkg-config
  libxsimd-dev libeigen3-dev libsentencepiece-dev nlohmann-json3-dev libxxhash-dev libcli11-dev libedit-dev doctest-dev
)

# What some tests use and leave out, aloud, where it is missing: libabigail, a second compiler, what makes Debian
# packages, a library of a host's own, what the benches need. .ci/run installs them too.
ci_packages=(
  abigail-tools clang dpkg-dev file libbenchmark-dev libprotobuf-dev protobuf-compiler
)

# What the preset aarch64 needs: a cross-compiler, and an emulator for what it makes.
aarch64_packages=(
  g++-aarch64-linux-gnu qemu-user-static
)

# What the languages of examples/bindings need, tool by tool: .ci/run installs what is missing, elsewhere their tests are
# skipped.
declare -A binding_packages=(
  [python3]=python3 [node]=nodejs [npm]=npm [rustc]=rustc [go]=golang-go [javac]=default-jdk-headless
)

say() { printf '==> %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

missing_packages() {
  local package
  for package in "${packages[@]}"; do
    # Without dpkg-query nobody can tell: then every package counts as missing.
    [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
      printf '%s ' "$package"
  done
}

# Installs the packages that are missing; with none missing it needs neither apt nor root.
install_packages() {
  local missing as_root=(env)
  read -ra missing <<<"$(missing_packages)"
  [ ${#missing[@]} -gt 0 ] || { say "all packages are there"; return; }
  command -v apt-get >/dev/null || die "no apt-get here; please install (Debian names): ${missing[*]}"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || die "neither root nor sudo; please install as root: ${missing[*]}"
    as_root=(sudo env)
  fi
  local apt=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
  say "installing ${missing[*]}"
  "${apt[@]}" update >&2 || say "apt-get update failed: trying with the package lists that are here"
  "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2 || die "could not install: ${missing[*]}"
}

# build PRESET [cmake --build options]: into build/PRESET.
build() {
  local preset=$1
  shift
  say "building build/$preset"
  (cd "$project_root" && cmake --preset "$preset" && cmake --build --preset "$preset" "$@") >&2
}

# run_tests PRESET [ctest options]
run_tests() {
  local preset=$1
  shift
  build "$preset"
  say "running the tests of build/$preset"
  (cd "$project_root" && ctest --preset "$preset" --parallel "$(nproc)" "$@")
}
