#!/bin/sh
# Says what the machine lacks, one line each with the mend, before anything else starts.
#   check_machine.sh            check; exit 1 if something is missing
#   check_machine.sh --python   print the Python 3.11 to build the environment with
# Runs in a plain sh with nothing installed.

NEED_GB=${PHOTOVERSE_NEED_GB:-8}

is_311() { "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; }

find_python() {
    for name in ${PYTHON:-} python3.11 python3 python; do
        if command -v "$name" >/dev/null 2>&1 && is_311 "$name"; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

if [ "$1" = "--python" ]; then
    find_python
    exit
fi

missing=0
lacking=
say() {
    echo "error: $1" >&2
    missing=1
}

if python=$(find_python); then
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        say "Python 3.11 has no venv module: install it (Debian, Ubuntu: apt-get install python3.11-venv)"
    include=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
    test -f "$include/Python.h" ||
        say "Python 3.11 has no headers: install them (Debian, Ubuntu: apt-get install python3.11-dev)"
    test "$(uname)" != Linux || lacking=$("$python" -c 'import ctypes
for name in ("libGL.so.1", "libgthread-2.0.so.0", "libxcb.so.1"):
    try:
        ctypes.CDLL(name)
    except OSError:
        print(name, end=" ")')
    test -z "$lacking" ||
        say "OpenCV's system libraries are missing (${lacking% }): install them (Debian, Ubuntu: apt-get install libgl1 libglib2.0-0 libxcb1)"
else
    say "Python 3.11 is missing: install it (Debian, Ubuntu: apt-get install python3.11 python3.11-venv python3.11-dev; macOS: brew install python@3.11) or set PYTHON=/path/to/python3.11"
fi

command -v "${CXX:-c++}" >/dev/null 2>&1 ||
    say "a C++ compiler is missing: install one (Debian, Ubuntu: apt-get install g++; macOS: xcode-select --install)"

if [ ! -x .venv/bin/photoverse ]; then
    free_gb=$(df -Pk . | awk 'NR==2 {printf "%d", $4 / 1048576}')
    test "$free_gb" -ge "$NEED_GB" ||
        say "only $free_gb GB of disk are free here, $NEED_GB GB are needed: make room, or move the project to a larger disk"
fi
exit $missing
