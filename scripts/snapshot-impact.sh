#!/usr/bin/env bash
# What snapshots under way cost those who write: p99 of writes while a store that was away gets
# every region as a snapshot, against before. Prints each round, and the median of the ratios.
#   --rounds N          rounds (default 5)
#   --seconds N         length of the window before (default 60)
#   --mib N             data (default 256)
#   --rate N            writes a second (default 500)
#   --store-flag FLAG   a further flag of every store, such as --snapshot-send-mib-per-sec=0
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case "${1:-}" in
-h | --help) sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
set_up
build
QUORATE_PROGRAM="$QUORATE" cargo run --quiet -p quorate-tests --example snapshot_impact -- "$@"
