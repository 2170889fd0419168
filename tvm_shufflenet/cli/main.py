"""The entry point: parsing, interrupts, error messages, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import NoReturn

from ..errors import BadInput
from ..support import interrupts
from ..support.without_torch import without_torch
from . import (
    bench,
    clean,
    compare,
    compile,
    deploy,
    doctor,
    inspect,
    models,
    profile,
    records,
    replay,
    reproduce,
    run,
    serve,
    targets,
    tune,
)
from .command import add_parser

# In the order of --help.
MODULES = (
    *(models, targets, doctor, clean, tune, compile, run, bench, profile, inspect, compare, reproduce, deploy, replay),
    *(records, serve),
)
COMMANDS = {module.COMMAND.name: module.COMMAND for module in MODULES}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code (see errors.py)."""
    options = parser().parse_args(arguments)
    command = COMMANDS[options.name]
    # libtvm starts its threads at first use and never changes its mind; the host side needs one only.
    os.environ.setdefault("TVM_NUM_THREADS", "1")
    try:
        with interrupts.interruptible(command.interrupted):
            _check_files(options, command.writes)
            with without_torch() if command.without_torch else contextlib.nullcontext():
                options.run(options)
        return 0
    except KeyboardInterrupt:
        print(command.interrupted, file=sys.stderr)
        return interrupts.EXIT_CODE
    except BrokenPipeError:
        return 0
    except Exception as exc:
        if options.debug:
            raise
        from .last_words import last_words

        text, code = last_words(exc)
        print(text, file=sys.stderr)
        return code


def _check_files(options: argparse.Namespace, writes: tuple[str, ...]) -> None:
    """Raises BadInput, before hours are spent on what could not be kept."""
    for option in writes:
        name = getattr(options, option, None)
        if name is None or name == "-":
            continue
        folder, file = os.path.split(name)
        if not file or os.path.isdir(name) or not os.path.isdir(folder or "."):
            cause = "its folder does not exist, or it is one"
            raise BadInput(f"cannot write '{name}'", cause, f"name another --{option} file")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="tvm-shufflenet",
        description="Tune ShuffleNet-class PyTorch models with Apache TVM and deploy them on ARM Cortex-A.",
    )
    made.add_argument("--debug", action="store_true", help="show the traceback of an error")
    made.add_argument("--version", action=_Version, help="show this program's version, and that of TVM")
    subparsers = made.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for command in COMMANDS.values():
        command.options(add_parser(subparsers, command.name, command.help, command.run))
    return made


class _Version(argparse.Action):
    """Looks the version up when asked, which takes longer than all of ``--help``."""

    def __init__(self, option_strings, dest, help=None):
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser, namespace, values, option_string=None) -> NoReturn:
        from importlib.metadata import version

        from ..support.toolchain import TVM_VERSION

        print(f"tvm-shufflenet {version('tvm-shufflenet')} (TVM {TVM_VERSION})")
        raise SystemExit(0)


def entry() -> NoReturn:
    """``main`` as a process of its own."""
    from ..report.heartbeat import Heartbeat
    from ..support.encoding import speak_utf8
    from ..support.run_folder import run_folder

    speak_utf8()
    serves = "serve" in sys.argv[1:2]  # its server outlives this program
    with Heartbeat("working", sieve="--debug" not in sys.argv), contextlib.nullcontext() if serves else run_folder():
        code = main()
    if code != interrupts.EXIT_CODE:
        code = _flushed(code)
    if code == interrupts.EXIT_CODE:
        # Python remembers an interrupt that reached the top of some module's own code, and would end by it after all.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _flushed(code: int) -> int:
    """The exit code after what was printed has been written: a full disk shows only then."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again when it ends
    except OSError as exc:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print(f"tvm-shufflenet: cannot write what it prints: {exc.strerror}; next: free space there", file=sys.stderr)
        return code or BadInput.exit_code
    return code
