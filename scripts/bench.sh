#!/usr/bin/env bash
# This cluster against etcd: 3 stores (and 3 placement members) against 3 etcd nodes, on this
# machine, from this session, on the same disk, driven by one load generator. Every write is synced
# on a majority in both. Rounds are interleaved, and the system that is not measured is stopped.
# Prints, for each cell, the ratio of the rates (quorate / etcd): minimum, median, maximum.
#   --rounds N    rounds (default 3)
#   --seconds N   length of each measured run (default 10)
#   --quick       one round of 3 seconds
#   --clients L   list of client counts (default "1 64 256")
#   --workloads L list of workloads (default "put get")
#   --csv FILE    also write every run as a line
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

rounds=3 seconds=10 clients="1 64 256" workloads="put get" csv=""
keys=100000 value_size=256 regions=100
while [ $# -gt 0 ]; do
    case "$1" in --quick | -h | --help) ;; --*) needs_value "$1" $# ;; esac
    case "$1" in
    --rounds) rounds="$2"; shift 2 ;;
    --seconds) seconds="$2"; shift 2 ;;
    --quick) rounds=1 seconds=3; shift ;;
    --clients) clients="$2"; shift 2 ;;
    --workloads) workloads="$2"; shift 2 ;;
    --csv) csv="$2"; shift 2 ;;
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) fail "unknown argument $1: see --help" ;;
    esac
done

# Debian's etcd, unpacked beside the build folder: installed, it would run as a service.
fetch_etcd() {
    local folder
    folder="$(dirname "$CARGO_TARGET_DIR")/etcd"
    if [ ! -x "$folder/usr/bin/etcd" ]; then
        command -v apt-get >/dev/null || fail "etcd is missing: put etcd 3.4 or newer into the PATH"
        say "fetching Debian's etcd-server into $folder"
        mkdir -p "$folder"
        if ! (cd "$folder" && apt-get download etcd-server >/dev/null 2>&1); then
            as_root apt-get update >&2
            (cd "$folder" && apt-get download etcd-server >&2) || fail "etcd-server cannot be fetched"
        fi
        dpkg-deb -x "$folder"/etcd-server_*.deb "$folder"
    fi
    PATH="$folder/usr/bin:$PATH"
}

set_up
if ! command -v etcd >/dev/null; then
    fetch_etcd
fi
build

own_cluster bench
results="$work/results"
: >"$results"
etcd_pids=() quorate_pids=()

# Everything that was started ends here, by pid, whatever happened.
finish() {
    trap - EXIT INT TERM
    resume "${quorate_pids[@]}"
    resume "${etcd_pids[@]}"
    local pid
    for pid in "${etcd_pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    for pid in "${etcd_pids[@]}"; do wait "$pid" 2>/dev/null || true; done
    end_own_cluster
}
pause() { [ $# -eq 0 ] || kill -STOP "$@" 2>/dev/null || true; }
resume() { [ $# -eq 0 ] || kill -CONT "$@" 2>/dev/null || true; }
trap finish EXIT

# The first free port at or above $1.
free_port() {
    local port="$1"
    while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
    echo "$port"
}

start_quorate() {
    # Default settings: no small regions as for a first look.
    : >"$work/store-settings.toml"
    "$QUORATE" up --same-session --ephemeral --store-config "$work/store-settings.toml" >&2
    mapfile -t quorate_pids < <(sed -n 's/^pid = \([0-9]*\)$/\1/p' "$QUORATE_CLUSTER/cluster.toml")
    [ "${#quorate_pids[@]}" -eq 6 ] || fail "expected 6 processes in $QUORATE_CLUSTER/cluster.toml"
}

start_etcd() {
    local node port=23790 client=() peer=() cluster=""
    for node in 0 1 2; do
        port="$(free_port "$port")"
        client[node]="127.0.0.1:$port"
        port="$(free_port $((port + 1)))"
        peer[node]="http://127.0.0.1:$port"
        port=$((port + 1))
        cluster="$cluster${cluster:+,}etcd-$node=${peer[node]}"
    done
    for node in 0 1 2; do
        etcd --name "etcd-$node" --data-dir "$work/etcd-$node" \
            --listen-client-urls "http://${client[node]}" --advertise-client-urls "http://${client[node]}" \
            --listen-peer-urls "${peer[node]}" --initial-advertise-peer-urls "${peer[node]}" \
            --initial-cluster "$cluster" --initial-cluster-state new --initial-cluster-token bench \
            --quota-backend-bytes 8589934592 --logger zap --log-level error \
            >"$work/etcd-$node.log" 2>&1 </dev/null &
        etcd_pids+=($!)
    done
    etcd_endpoints="${client[0]},${client[1]},${client[2]}"
    wait_for etcd
}

bench_quorate() { "$QUORATE" bench --keys "$keys" --value-size "$value_size" "$@"; }
bench_etcd() {
    "$QUORATE" bench --target etcd --endpoints "$etcd_endpoints" \
        --pids "$(IFS=,; echo "${etcd_pids[*]}")" --keys "$keys" --value-size "$value_size" "$@"
}

# Until a system serves a write again (after a start or a pause), at most 60 s.
wait_for() {
    local deadline=$((SECONDS + 60))
    until "bench_$1" --workload put --clients 3 --ops 3 --warm-up 0 --timeout 2 -o plain >"$work/probe" 2>&1; do
        [ "$SECONDS" -lt "$deadline" ] || fail "$1 does not serve: $(tail -n 1 "$work/probe")"
        sleep 0.2
    done
}

# One run: $1 system, $2 workload, $3 clients. The other system is stopped meanwhile.
run_cell() {
    local system="$1" workload="$2" count="$3"
    if [ "$system" = quorate ]; then
        pause "${etcd_pids[@]}"
        resume "${quorate_pids[@]}"
        bench_quorate --balanced --prepare >/dev/null 2>&1 || fail "leaders do not spread"
    else
        pause "${quorate_pids[@]}"
        resume "${etcd_pids[@]}"
    fi
    wait_for "$system"
    "bench_$system" --workload "$workload" --clients "$count" --seconds "$seconds" --warm-up 1 \
        -o plain >"$work/run" 2>"$work/run.err" || fail "$system $workload $count: $(tail -n 1 "$work/run.err")"
    awk -F'\t' -v round="$round" -v measured="$system" -v workload="$workload" -v clients="$count" '
        $1 == "operations_per_second" { rate = $2 }
        $1 == "latency_us" { p50 = part("p50"); p99 = part("p99") }
        $1 == "cpu_us_per_operation" { cpu = part("system"); own = part("generator") }
        $1 == "syncs_per_second" { syncs = $2 }
        function part(name,  words, i, n) {
            n = split($2, words, " ")
            for (i = 1; i < n; i++) if (words[i] == name) return words[i + 1]
        }
        END { printf "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", round, workload, clients, measured, rate, p50, p99, cpu, own, syncs }
    ' "$work/run" >>"$results"
    tail -n 1 "$results" | awk -F'\t' '{
        printf "round %s  %-4s %4s clients  %-8s %9d op/s  p50 %6s µs  p99 %7s µs  CPU %6s µs/op (+ %s generator)  syncs/s %s\n",
            $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 }' >&2
}

start_quorate
say "loading $keys keys of 16 B with values of $value_size B into $regions regions"
bench_quorate --regions "$regions" --load --balanced --prepare
pause "${quorate_pids[@]}"
start_etcd
say "loading the same into etcd ($(etcd --version | head -n 1))"
bench_etcd --load --prepare

for round in $(seq "$rounds"); do
    for workload in $workloads; do
        for count in $clients; do
            # Every second round in the other order.
            if [ $((round % 2)) -eq 1 ]; then order="etcd quorate"; else order="quorate etcd"; fi
            for system in $order; do run_cell "$system" "$workload" "$count"; done
        done
    done
done

if [ -n "$csv" ]; then
    {
        echo "round,workload,clients,system,ops_per_second,p50_us,p99_us,cpu_us_per_op,generator_us_per_op,syncs_per_second"
        tr '\t' ',' <"$results"
    } >"$csv"
fi
awk -F'\t' '
    { cell = $2 "\t" $3; if (!(cell in seen)) { seen[cell] = 1; cells[++count] = cell }
      rate[cell, $4, $1] = $5; if ($1 > rounds) rounds = $1 }
    function sorted(values, n,  i, j, held) {
        for (i = 2; i <= n; i++) {
            held = values[i]
            for (j = i - 1; j >= 1 && values[j] > held; j--) values[j + 1] = values[j]
            values[j + 1] = held
        }
    }
    function median(values, n) { return n % 2 ? values[(n + 1) / 2] : (values[n / 2] + values[n / 2 + 1]) / 2 }
    END {
        printf "%-8s %7s %12s %12s   %s\n", "workload", "clients", "quorate op/s", "etcd op/s", "ratio: minimum median maximum"
        for (c = 1; c <= count; c++) {
            for (r = 1; r <= rounds; r++) {
                ours[r] = rate[cells[c], "quorate", r]; theirs[r] = rate[cells[c], "etcd", r]
                ratio[r] = theirs[r] > 0 ? ours[r] / theirs[r] : 0
            }
            sorted(ours, rounds); sorted(theirs, rounds); sorted(ratio, rounds)
            split(cells[c], name, "\t")
            printf "%-8s %7s %12d %12d   %14.2f %6.2f %7.2f\n", name[1], name[2],
                median(ours, rounds), median(theirs, rounds), ratio[1], median(ratio, rounds), ratio[rounds]
        }
    }' "$results"
