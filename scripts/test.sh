#!/usr/bin/env bash
# Sets up as up.sh does, then every check and every test: format, lints, unit and golden tests,
# seeds of the simulator, processes on the real binary. Arguments go to `cargo test`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

set_up
cd "$QUORATE_ROOT"
for part in fmt clippy; do
    cargo "$part" --version >/dev/null 2>&1 ||
        fail "cargo $part is missing: rustup component add rustfmt clippy"
done
cargo fmt --all --check
cargo clippy --locked --workspace --all-targets -- -D warnings
# The process tests run the program itself.
build
export QUORATE_PROGRAM="$CARGO_TARGET_DIR/debug/quorate"
cargo test --locked --workspace --no-fail-fast "$@"
