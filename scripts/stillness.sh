#!/usr/bin/env bash
# Whether balancing comes to rest: 3 stores at default settings with 200 regions, and a fourth,
# empty one that arrives. Prints how long it takes until stores differ by at most 10 % of the mean
# in replicas and in leaders, and the skew; then the load ends, and for some minutes no operator
# may begin. PASS (exit code 0) where none does and nothing is lost.
#   --minutes N    how long nothing may begin (default 5)
#   --regions N    regions (default 200)
#   --records FILE KEY TAB VALUE lines to load (default: Debian's package index, by dataset.sh)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

minutes=5 regions=200 records=()
while [ $# -gt 0 ]; do
    case "$1" in
    --minutes) minutes="$2"; shift 2 ;;
    --regions) regions="$2"; shift 2 ;;
    --records) records=(--records "$(realpath "$2")"); shift 2 ;;
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown argument $1: see --help" ;;
    esac
done

set_up
build
cd "$QUORATE_ROOT"
exec ./quorate demo rebalance --regions "$regions" --still "$((60 * minutes))" --defaults \
    --limit "$((1800 + 60 * minutes))" "${records[@]}"
