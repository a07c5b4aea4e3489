#!/usr/bin/env bash
# What idle regions cost: a cluster of 3 stores with many regions that hold data and sleep, at the
# default 64 MiB of block cache and 32 MiB of memtables. Prints for each store the share of a core
# over a minute and the resident memory (both from /proc), then how long a store takes to start.
#   --regions N   regions (default 1000)
#   --seconds N   length of the measured time (default 60)
#   --keys N      keys in them, of 16 B with values of 256 B (default 100000)
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

regions=1000 seconds=60 keys=100000
while [ $# -gt 0 ]; do
    case "$1" in --quick | -h | --help) ;; --*) needs_value "$1" $# ;; esac
    case "$1" in
    --regions) regions="$2"; shift 2 ;;
    --seconds) seconds="$2"; shift 2 ;;
    --keys) keys="$2"; shift 2 ;;
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown argument $1: see --help" ;;
    esac
done

set_up
build

own_cluster idle

# Number, pid and status address of each store.
stores() {
    awk -F' = ' '
        { gsub(/"/, "", $2) }
        $1 == "role" { role = $2 }
        $1 == "number" { number = $2 }
        $1 == "status_address" { status = $2 }
        $1 == "pid" && role == "store" { print number, $2, status }
    ' "$QUORATE_CLUSTER/cluster.toml"
}

# The page $2 of the status address $1; fails unless it is there and says 200.
page() {
    local host="${1%:*}" port="${1##*:}" line
    exec 3<>"/dev/tcp/$host/$port" || return 1
    printf 'GET %s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n' "$2" "$1" >&3
    read -r line <&3
    cat <&3
    exec 3>&-
    [[ "$line" == *" 200 "* ]]
} 2>/dev/null

# Groups that are awake on all stores together.
awake() {
    local number pid status sum=0 count
    while read -r number pid status; do
        count="$(page "$status" /metrics | awk '$1 == "quorate_raft_groups_awake" { print $2 }')"
        sum=$((sum + ${count:-1}))
    done < <(stores)
    echo "$sum"
}

# Clock ticks of processor time that a process has used.
ticks() { awk '{ sub(/^.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }

# Default settings: no small regions as for a first look.
: >"$work/store-settings.toml"
"$QUORATE" up --ephemeral --store-config "$work/store-settings.toml" >&2
say "splitting off $regions regions and loading $keys keys"
"$QUORATE" bench --keys "$keys" --regions "$regions" --load --balanced --prepare >&2

deadline=$((SECONDS + 120))
until [ "$(awake)" -eq 0 ]; do
    [ "$SECONDS" -lt "$deadline" ] || fail "$(awake) groups are still awake after two minutes"
    sleep 1
done
say "all groups sleep; measuring for $seconds s"

per_second="$(getconf CLK_TCK)"
declare -A before
while read -r number pid status; do before[$pid]="$(ticks "$pid")"; done < <(stores)
sleep "$seconds"
printf '%-8s %9s %12s %14s\n' store regions "% of a core" "resident MB"
while read -r number pid status; do
    used=$(($(ticks "$pid") - before[$pid]))
    count="$(page "$status" /metrics | awk '$1 == "quorate_store_regions" { print $2 }')"
    awk -v number="$number" -v regions="$count" -v used="$used" -v rate="$per_second" -v seconds="$seconds" '
        $1 == "VmRSS:" { printf "s%-7s %9s %12.2f %14.0f\n", number, regions, 100 * used / rate / seconds, $2 * 1024 / 1e6 }
    ' "/proc/$pid/status"
done < <(stores)

read -r number pid status < <(stores)
kill "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
begun="$(date +%s%N)"
"$QUORATE" up --data "$QUORATE_CLUSTER" >/dev/null 2>&1 &
until page "$status" /ready >/dev/null; do sleep 0.01; done
ended="$(date +%s%N)"
wait $!
awk -v number="$number" -v nanos="$((ended - begun))" \
    'BEGIN { printf "s%s served again %.2f s after its start\n", number, nanos / 1e9 }'
