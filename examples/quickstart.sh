#!/usr/bin/env bash
# From a bare Debian 12 to text: installs the packages that are missing (as root, or with sudo), builds the
# program into build/release, and lets the embedded model write. Run it from anywhere.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"

install_packages
build release --target mixtral_cli
say "build/release/bin/mixtral generate: the embedded model, then how its tokens were routed to the experts"
"$project_root/build/release/bin/mixtral" generate --prompt "The file is" --n 120 --seed 1 --routes
