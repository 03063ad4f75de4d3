#!/usr/bin/env bash
# Makes a version, in two steps, since what is released has to have passed .ci/run as it is:
#   bash cmake/release.sh prepare 1.2.0   writes the number where it stands, dates its part of CHANGELOG.md, commits
#   bash cmake/release.sh publish         of a prepared commit: tests, tags it, puts packages, sources and their checksums
#                                         into build/v1.2.0; nothing is pushed
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
cd "$project_root"

number='[0-9]+\.[0-9]+\.[0-9]+'

project_version() { sed -nE "s/^project\(mixtral VERSION ($number) .*/\1/p" CMakeLists.txt; }
# a is no later than b.
ordered() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -1)" = "$1" ]; }

require_clean() {
  local changes
  changes=$(git status --porcelain)
  [ -z "$changes" ] || die "there are changes that are not committed: $changes"
}

# What the C ABI says of itself must not be later than the version.
check_since() {
  local since
  since=$(grep -ohE 'Since [0-9]+\.[0-9]+|^MIXTRAL_[0-9]+\.[0-9]+' capi/include/mixtral.h capi/mixtral.map |
    grep -oE '[0-9]+\.[0-9]+' | sort -V | tail -1)
  ordered "$since" "${1%.*}" || die "the C ABI has parts since $since, so this cannot be version $1"
}

prepare() {
  local version=$1 last heading
  [[ $version =~ ^$number$ ]] || die "\"$version\" is no version, expected one as 1.2.0"
  require_clean
  last=$(git tag --list 'v*' --sort=version:refname | tail -1)
  [ -z "$last" ] || { [ "v$version" != "$last" ] && ordered "${last#v}" "$version"; } || die "$last is there already"
  check_since "$version"
  heading=$(grep -m1 -E "^## " CHANGELOG.md)
  [ "$heading" = "## $version" ] || die "CHANGELOG.md begins with \"$heading\", expected \"## $version\" without a date"
  [ -n "$(awk '/^## /{n++} n==1 && /^- /' CHANGELOG.md)" ] || die "CHANGELOG.md says nothing about $version"

  local major minor patch
  IFS=. read -r major minor patch <<<"$version"
  sed -i -E "s/^(project\(mixtral VERSION )$number /\1$version /" CMakeLists.txt
  sed -i -E -e "s/^(#define MIXTRAL_VERSION_MAJOR )[0-9]+/\1$major/" -e "s/^(#define MIXTRAL_VERSION_MINOR )[0-9]+/\1$minor/" \
    -e "s/^(#define MIXTRAL_VERSION_PATCH )[0-9]+/\1$patch/" -e "s/(The same as text, \")$number/\1$version/" capi/include/mixtral.h
  sed -i "s/^## $version$/## $version, $(date +%Y-%m-%d)/" CHANGELOG.md
  git commit -q -a -m "Version $version"
  say "committed; when it has passed .ci/run: bash cmake/release.sh publish"
}

publish() {
  local version out
  version=$(project_version)
  out=build/v$version
  require_clean
  grep -qE "^## $version, [0-9-]{10}$" CHANGELOG.md || die "version $version is not prepared: CHANGELOG.md has no date for it"
  [ -z "$(git tag --list "v$version")" ] || die "v$version is there already"
  check_since "$version"
  bash tests/run.sh
  rm -rf "$out"
  mkdir -p "$out"
  # For the system's own folders, so in a build folder of its own.
  cmake --preset release -B build/package -D CMAKE_INSTALL_PREFIX=/usr -D MIXTRAL_BUILD_TESTS=OFF \
    -D MIXTRAL_BUILD_EXAMPLES=OFF >&2
  cmake --build build/package --target package >&2
  cp build/package/*_"$version"_*.deb "$out"
  git archive --prefix="mixtral-$version/" -o "$out/mixtral-$version.tar.gz" HEAD
  (cd "$out" && sha256sum -- * >SHA256SUMS)
  git tag -a "v$version" -m "mixtral $version"
  say "tagged v$version; $out holds:"
  ls -l "$out"
}

case ${1:-} in
  prepare) prepare "${2:-}" ;;
  publish) publish ;;
  *) die "usage: release.sh prepare VERSION | publish" ;;
esac
