#!/usr/bin/env bash
# A real data set: Debian's package index as KEY TAB VALUE lines for `quorate kv import`.
# One line for each field of each package (`debian/bash/Version<TAB>5.2.15-2+b2`), in the order of
# the index; backslashes, tabs and line ends are escaped as in every key and value.
#   scripts/dataset.sh > packages.tsv
#   scripts/dataset.sh --fields Version,Depends,Description > packages.tsv
set -euo pipefail
# shellcheck source=scripts/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

fields="Version,Section,Installed-Size,Depends,Description"
while [ $# -gt 0 ]; do
    case "$1" in
    --fields)
        [ $# -ge 2 ] || fail "--fields needs names, such as Version,Depends"
        fields="$2"
        shift 2
        ;;
    -h | --help)
        sed -n '2,7s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) fail "unknown argument $1: see --help" ;;
    esac
done

command -v apt-cache >/dev/null ||
    fail "needs apt-cache, which Debian and its descendants have; elsewhere import any file of KEY TAB VALUE lines"
if [ "$(apt-cache dumpavail | head -n 1 | wc -l)" -eq 0 ]; then
    say "the package index is empty, fetching it"
    as_root apt-get update >&2
fi

apt-cache dumpavail | LC_ALL=C awk -v fields="$fields" '
    function escaped(text) {
        gsub(/\\/, "\\\\\\\\", text)
        gsub(/\t/, "\\x09", text)
        gsub(/\r/, "\\x0d", text)
        gsub(/\n/, "\\x0a", text)
        return text
    }
    # The field that was read last, with its continuation lines.
    function finish() {
        if (name in wanted && package != "") {
            printf "debian/%s/%s\t%s\n", escaped(package), name, escaped(value)
            lines++
        }
        name = ""
    }
    BEGIN {
        count = split(fields, names, ",")
        for (i = 1; i <= count; i++) wanted[names[i]] = 1
    }
    /^$/ { finish(); package = ""; next }
    /^[ \t]/ { value = value "\n" substr($0, 2); next }
    {
        finish()
        colon = index($0, ":")
        name = substr($0, 1, colon - 1)
        value = substr($0, colon + 1)
        sub(/^ /, "", value)
        if (name == "Package") package = value
    }
    END {
        finish()
        printf "%d records\n", lines > "/dev/stderr"
        if (lines == 0) exit 1
    }
' || fail "no package has a field of $fields"

