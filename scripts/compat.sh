#!/usr/bin/env bash
# An unmodified TiKV client against this cluster: the Python wheel `tikv-client` from PyPI, which is
# the Rust client underneath. A cluster of its own is started, data written by one side is read by
# the other, across regions that split and through the death of a store; ends with PASS or FAIL.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case "${1:-}" in
"") ;;
-h | --help) sed -n '2,4s/^# \{0,1\}//p' "$0"; exit 0 ;;
*) fail "unknown argument $1: see --help" ;;
esac

set_up
if ! python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then
    install_packages "Python with venv" python3-venv
fi
build

own_cluster compat

# The wheel is kept beside the build folder.
venv="$(dirname "$CARGO_TARGET_DIR")/compat-venv"
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c 'import tikv_client' 2>/dev/null; then
    say "fetching the wheel tikv-client 0.0.4"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check tikv-client==0.0.4
fi

"$QUORATE" up --ephemeral >&2
# Addresses of placement, and the pid of a store.
endpoints="$(awk -F' = ' '
    { gsub(/"/, "", $2) }
    $1 == "role" { role = $2 }
    $1 == "address" && role == "placement" { printf "%s%s", sep, $2; sep = "," }
' "$QUORATE_CLUSTER/cluster.toml")"
victim="$(awk -F' = ' '
    { gsub(/"/, "", $2) }
    $1 == "role" { role = $2 }
    $1 == "pid" && role == "store" { print $2; exit }
' "$QUORATE_CLUSTER/cluster.toml")"
[ -n "$endpoints" ] && [ -n "$victim" ] || fail "the cluster's addresses cannot be read"

if "$venv/bin/python" "$QUORATE_ROOT/tests/compat/raw.py" "$endpoints" "$QUORATE" "$victim"; then
    echo "PASS"
else
    echo "FAIL"
    exit 1
fi
