#!/usr/bin/env bash
# What changes of replicas cost those who write: p99 of writes while all regions grow from 3 to 5
# replicas, shrink from 5 to 3, while some replicas move, and while a store arrives, each against
# the p99 of the time before, under the same load (some 500 writes a second, each counted from when
# it was due). Default settings, 5 stores. Prints the ratio of each round, at the end the medians
# and what was lost. PASS (exit code 0) where every median is at most 3 and nothing is lost.
#   --rounds N     rounds (default 5)
#   --seconds N    length of each window before (default 60)
#   --regions N    regions (default 24)
#   --records FILE KEY TAB VALUE lines to load (default: Debian's package index, by dataset.sh)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=5 seconds=60 regions=24 records=()
while [ $# -gt 0 ]; do
    case "$1" in
    --rounds) rounds="$2"; shift 2 ;;
    --seconds) seconds="$2"; shift 2 ;;
    --regions) regions="$2"; shift 2 ;;
    --records) records=(--records "$(realpath "$2")"); shift 2 ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown argument $1: see --help" ;;
    esac
done

set_up
build
cd "$QUORATE_ROOT"
exec ./quorate demo impact --rounds "$rounds" --seconds "$seconds" --regions "$regions" \
    --limit "$((300 + rounds * (4 * seconds + 600)))" "${records[@]}"
