#!/usr/bin/env bash
# How long writes wait when a store dies: 3 stores at default settings with 300 regions, so that
# each leads about 100. Kills (-9) one store after the other under a checked load at all regions
# that it leads, starts it again, and waits until the cluster is whole. Prints the longest gap
# between acknowledged writes of any region for each kill, at the end the maximum, the median and
# what was lost. PASS (exit code 0) where the maximum is under 1.5 s and nothing is lost.
#   --kills N      kills (default 20)
#   --regions N    regions (default 300)
#   --records FILE KEY TAB VALUE lines to load (default: Debian's package index, by dataset.sh)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

kills=20 regions=300 records=()
while [ $# -gt 0 ]; do
    case "$1" in
    --kills) kills="$2"; shift 2 ;;
    --regions) regions="$2"; shift 2 ;;
    --records) records=(--records "$(realpath "$2")"); shift 2 ;;
    -h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown argument $1: see --help" ;;
    esac
done

set_up
build
cd "$QUORATE_ROOT"
# A gap is told to within 50 ms: a region's next write comes 40 ms after the last answer.
exec ./quorate demo failover --regions "$regions" --kills "$kills" --led-only --pause 40 \
    --within 1500 --limit "$((300 + 60 * kills))" "${records[@]}"
