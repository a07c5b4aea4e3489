# shellcheck shell=bash
# What the scripts in this folder share: where to build, what must be installed, how to build.
# Sourced, not run.

QUORATE_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/quorate/target}"
# As cargo takes it, but wherever it is asked from.
case "$CARGO_TARGET_DIR" in
/*) ;;
*) CARGO_TARGET_DIR="$PWD/$CARGO_TARGET_DIR" ;;
esac
# The program as this checkout calls it: a link into the build folder.
QUORATE="$QUORATE_ROOT/quorate"

# The value of an option. $1: the option, $2: how many arguments are left, with it.
needs_value() {
    [ "$2" -ge 2 ] || fail "$1 needs a value: see --help"
}

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "$(basename "$0"): $*"
    exit 1
}

# Runs a command as root: directly, or through sudo.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        fail "needs root for: $* (run that yourself, or install sudo)"
    fi
}

# Installs Debian packages; elsewhere says what to install. $1: words for people, then packages.
install_packages() {
    local words="$1"
    shift
    if ! command -v apt-get >/dev/null; then
        fail "$words is missing. Install it and run this again:
  Fedora, RHEL   sudo dnf install clang-devel gcc-c++
  Arch           sudo pacman -S clang gcc
  macOS          brew install llvm   (then: export LIBCLANG_PATH=\"\$(brew --prefix llvm)/lib\")"
    fi
    say "installing $*"
    if ! as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >&2; then
        as_root apt-get update >&2
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" >&2
    fi
}

# libclang itself (libclang-cpp, which comes with LLVM, is another library), and its own headers:
# the bare library, as other programs bring it, cannot read a single C++ file.
have_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    local folder headers=""
    for folder in /usr/lib/llvm-*/lib/clang /usr/lib/clang /usr/lib64/clang \
        /opt/homebrew/opt/llvm/lib/clang /usr/local/opt/llvm/lib/clang \
        /Library/Developer/CommandLineTools/usr/lib/clang; do
        compgen -G "$folder/*/include/stddef.h" >/dev/null && headers=yes
    done
    [ -n "$headers" ] || return 1
    for folder in /usr/lib/llvm-*/lib /usr/lib/*-linux-gnu /usr/lib64 /usr/lib64/llvm*/lib /usr/lib \
        /opt/homebrew/opt/llvm/lib /usr/local/opt/llvm/lib; do
        compgen -G "$folder/libclang.so*" >/dev/null && return 0
        compgen -G "$folder/libclang-[0-9]*.so*" >/dev/null && return 0
        compgen -G "$folder/libclang.dylib" >/dev/null && return 0
    done
    return 1
}

# Everything a build needs.
set_up() {
    cd "$QUORATE_ROOT"
    if ! command -v cargo >/dev/null; then
        fail "Rust is missing: install it from https://rustup.rs (1.88 or newer) and run this again"
    fi
    local version
    version="$(rustc --version | awk '{ split($2, part, "."); print part[1] * 1000 + part[2] }')"
    if [ "$version" -lt 1088 ]; then
        fail "Rust is too old ($(rustc --version)): run 'rustup update', or install 1.88 or newer from https://rustup.rs"
    fi
    if ! command -v c++ >/dev/null; then
        install_packages "a C++ compiler" g++
    fi
    if ! have_libclang; then
        install_packages "libclang" libclang-dev
    fi
    mkdir -p "$CARGO_TARGET_DIR"
    own_build
    if compgen -G "$CARGO_TARGET_DIR/debug/deps/*rocksdb_sys-*.rlib" >/dev/null; then
        say "RocksDB is compiled already; building what changed ($CARGO_TARGET_DIR)"
    else
        say "RocksDB compiles once, which takes about 11 minutes on 2 cores; later builds reuse it ($CARGO_TARGET_DIR)"
    fi
}

# Cargo tells by file times alone whether what it built is up to date, and checkouts share the build
# folder: after another one was built here, what that left would be taken for ours. Third-party
# crates stay.
own_build() {
    local mark="$CARGO_TARGET_DIR/built-from"
    if [ "$(cat "$mark" 2>/dev/null)" != "$QUORATE_ROOT" ]; then
        rm -rf "$CARGO_TARGET_DIR"/*/.fingerprint/quorate-*
        printf '%s\n' "$QUORATE_ROOT" >"$mark"
    fi
}

# A cluster of the script's own, apart from any that runs; the user's memory of his is not touched.
# It ends, and its folder goes, with the script. $1: a name for the folder. Sets $work.
own_cluster() {
    mkdir -p "$QUORATE_ROOT/data"
    work="$(mktemp -d "$QUORATE_ROOT/data/$1.XXXXXX")"
    export QUORATE_CLUSTER="$work/quorate" XDG_STATE_HOME="$work/state"
    unset QUORATE_PLACEMENT
    trap end_own_cluster EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

end_own_cluster() {
    trap - EXIT INT TERM
    if [ -f "$QUORATE_CLUSTER/cluster.toml" ]; then
        "$QUORATE" down --force >/dev/null || true
    fi
    rm -rf "$work"
}

# Builds the program and links it into the checkout. One profile for running and testing.
build() {
    (cd "$QUORATE_ROOT" && cargo build --locked -p quorate-cli --bin quorate)
    ln -sfn "$CARGO_TARGET_DIR/debug/quorate" "$QUORATE"
}
