#!/usr/bin/env bash
# Installs the packages that are missing (as root, or with sudo), builds everything into build/release and runs
# all tests. Run it from anywhere; arguments go to ctest: `bash tests/run.sh -R hygiene`.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"

install_packages
run_tests release "$@"
