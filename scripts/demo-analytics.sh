#!/usr/bin/env bash
# From nothing to PASS or FAIL: sets up as up.sh does, makes the records, and runs
# `quorate demo analytics`. Exit code 0 is PASS, 1 is FAIL. Arguments go to the demo (see --help).
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

set_up
build
cd "$QUORATE_ROOT"
exec ./quorate demo analytics "$@"
