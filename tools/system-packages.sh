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

# Any llvm-mca from 19 on models the Cortex-A cores; the newest models them best.
have_llvm() {
    for version in 24 23 22 21 20 19; do
        command -v "llvm-mca-$version" >/dev/null 2>&1 && return 0
    done
    return 1
}
newest_llvm() {
    for version in 24 23 22 21 20 19; do
        apt-cache show "llvm-$version" >/dev/null 2>&1 && { echo "llvm-$version"; return 0; }
    done
    echo llvm-22 # let apt-get say what is wrong with it
}

if [ -z "$missing" ] && have_llvm; then
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
        have_llvm || missing="$missing $(newest_llvm)"
        echo "Missing system packages. Install them with:" >&2
        echo "    sudo apt-get update && sudo apt-get install -y --no-install-recommends$missing" >&2
        exit 1
    fi
fi
$root apt-get update -qq
have_llvm || missing="$missing $(newest_llvm)"
# shellcheck disable=SC2086  # a list of words
DEBIAN_FRONTEND=noninteractive $root apt-get install -y -qq --no-install-recommends $missing
