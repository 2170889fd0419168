"""The command ``serve``: start the RPC device server, or an emulated core."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ..errors import BadInput
from ..server import SERVER_PORT
from ..support import activity
from .command import Command
from .options import natural


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument(
        "--port", type=natural, default=SERVER_PORT, metavar="P", help="port; 0 for any free one (9090)"
    )
    parser.add_argument("--tracker", metavar="HOST:PORT", help="register at this TVM tracker")
    parser.add_argument("--key", metavar="K", help="device key at the tracker")
    parser.add_argument("--custom-addr", metavar="A", help="address that the tracker tells clients, if not this one")
    parser.add_argument("--core", metavar="CORE", help="serve an emulated core, such as cortex-a72, instead")
    parser.add_argument(
        "--secret-file", type=Path, metavar="FILE", help="serve only who knows what is in it; see SECURITY.md"
    )
    parser.add_argument("--user", metavar="NAME", help="started as root, become this user")
    parser.add_argument("--allow-root", action="store_true", help="run clients' code as root")
    parser.add_argument(
        "--insecure", action="store_true", help="beyond loopback without a secret: whoever connects runs code here"
    )
    parser.add_argument(
        "--seccomp",
        choices=("auto", "on", "off"),
        default="auto",
        help="filter the system calls of clients' code (auto: where the kernel does; on: do not start without)",
    )
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="instead write the server and its libraries to DIR")
    parser.add_argument("--arch", choices=("aarch64", "x86_64"), help="architecture of --bundle (aarch64)")
    parser.add_argument(
        "--android",
        action="store_true",
        help="with --bundle, for Android's own C library: built from TVM_HOME by the NDK in ANDROID_NDK_HOME",
    )


def run(options) -> None:
    from ..hardware.targets import host_machine
    from ..server.build import server_binary, server_bundle

    if options.android:
        if options.bundle is None or options.arch == "x86_64":
            raise BadInput("--android is for a bundle for arm64", "", "tvm-shufflenet serve --bundle DIR --android")
        from ..server import bionic

        program = bionic.server_bundle(options.bundle)
        print(f"{program}: adb push {options.bundle} /data/local/tmp/, and run it there with --help")
        return
    if options.bundle is not None:
        folder = server_bundle(options.arch or "aarch64", options.bundle)
        print(f"{folder}: copy it to the board and run ./tvm_shufflenet_server --help there")
        return
    if bool(options.tracker) != bool(options.key):
        raise BadInput("--tracker and --key go together", "", "give both, or neither")
    where = ["--host", options.host, "--port", str(options.port)]
    if options.tracker:
        where += ["--tracker", options.tracker, "--key", options.key]
    where += ["--custom-addr", options.custom_addr] if options.custom_addr else []
    if options.core is not None:
        if options.user:
            raise BadInput("an emulated core is served by the user who starts it", "", "leave --user out")
        return _serve_core(options.core, where, options.secret_file)
    command = [str(server_binary(host_machine())), *where]
    if options.secret_file is not None:
        from ..devices.secret import read_secret

        read_secret(options.secret_file)
        command += ["--secret-file", str(options.secret_file)]
    command += ["--seccomp", options.seccomp]
    command += ["--user", options.user] if options.user else []
    command += [flag for flag in ("--allow-root", "--insecure") if getattr(options, flag[2:].replace("-", "_"))]
    activity.end()
    os.execv(command[0], command)


def _serve_core(name: str, where: list[str], secret_file: Path | None) -> None:
    from ..devices.emulated import EmulatedDevice
    from ..devices.secret import own_secret
    from ..hardware.boards import find_board

    secret = own_secret(secret_file) if secret_file else b""
    if not secret:
        print("every user of this machine can run code here, as you; --secret-file keeps others out", file=sys.stderr)
    with EmulatedDevice(find_board(name), server_options=where, secret=secret, served=True) as device:
        print(f"listening {device.address}", flush=True)
        activity.end()
        device.wait()


COMMAND = Command("serve", "run the RPC device server on this machine", add_options, run, without_torch=True)
