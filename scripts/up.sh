#!/usr/bin/env bash
# Installs what is missing, builds, and starts a cluster: 3 placement members and 3 stores.
# Arguments go to `quorate up` (see `./quorate up --help`).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

set_up
build
cd "$QUORATE_ROOT"
./quorate up "$@"
say "Here    ./quorate is the program; from other folders: export PATH=\"$QUORATE_ROOT:\$PATH\""
