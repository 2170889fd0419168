#!/bin/sh
# Installs the Debian packages that the emulated device needs, and with "tests" those that only tests need, when it may;
# prints the exact command when it may not.
set -eu

tests=
if [ "${1:-}" = tests ]; then
    tests="openssh-client adb android-libnativehelper-dev"
    # Debian's is a package; Ubuntu's is a snap, which apt-get does not bring. What is there already serves as well.
    # shellcheck source=/dev/null
    command -v chromium >/dev/null 2>&1 || command -v google-chrome >/dev/null 2>&1 ||
        { . /etc/os-release && [ "$ID" = debian ] && tests="$tests chromium"; } || true
    # The tests start an sshd of their own. Where systemd runs, the package would start and keep one, which nobody asked
    # for: there the tests that need it are skipped until somebody installs it.
    [ -d /run/systemd/system ] || tests="$tests openssh-server"
fi

missing=
for package in qemu-user libc6-arm64-cross libstdc++6-arm64-cross gcc libc6-dev $tests; do
    dpkg -s "$package" >/dev/null 2>&1 || missing="$missing $package"
done

# Any llvm-mca from 19 on models the Cortex-A cores; the newest models them best. Tests fuzz the device server by clang++.
versions="24 23 22 21 20 19"
installed() {
    for version in $versions; do
        command -v "$1-$version" >/dev/null 2>&1 && return 0
    done
    return 1
}
offered() {
    for version in $versions; do
        apt-cache show "$1-$version" >/dev/null 2>&1 && { echo "$version"; return 0; }
    done
    echo 22 # let apt-get say what is wrong with it
}
missing_of_llvm() {
    installed llvm-mca || echo "llvm-$(offered llvm)"
    [ -z "$tests" ] || installed clang++ || { of=$(offered clang) && echo "clang-$of libclang-rt-$of-dev"; }
}

if [ -z "$missing$(missing_of_llvm)" ]; then
    exit 0
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Not a Debian or Ubuntu system: install qemu-aarch64 (7.2), llvm-mca (19 or newer), a C compiler and an arm64" >&2
    echo "glibc and libstdc++ yourself, and check with: .venv/bin/tvm-shufflenet doctor" >&2
    exit 1
fi

root=
if [ "$(id -u)" -ne 0 ]; then
    root="sudo -n"
    if ! sudo -n true 2>/dev/null; then
        echo "Missing system packages. Install them with:" >&2
        # shellcheck disable=SC2046  # a list of words
        echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" $(missing_of_llvm) >&2
        exit 1
    fi
fi
$root apt-get update -qq
# shellcheck disable=SC2046,SC2086  # lists of words
DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $missing $(missing_of_llvm)
