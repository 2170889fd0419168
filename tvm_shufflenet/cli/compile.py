"""The command ``compile``: cross-compile a model to a package."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import BadInput
from ..precision import PRECISIONS
from .command import Command
from .options import model_options, positive, records_option
from .output import console_of, say_notes
from .subjects import records_of, target_and_model


def add_options(parser: argparse.ArgumentParser) -> None:
    model_options(parser)
    source = parser.add_mutually_exclusive_group()
    records_option(source)
    source.add_argument("--untuned", action="store_true", help="TVM's own code, without schedules of ours")
    parser.add_argument(
        "--device", metavar="D", help="where to verify it (this machine or an emulated core, as the target wants)"
    )
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="threads it will run with (1)")
    parser.add_argument(
        "--format",
        choices=("vm", "standalone", "both"),
        default="vm",
        help="a library for TVM's runtime, one without any runtime, or both (vm)",
    )
    parser.add_argument(
        "--static",
        action="store_true",
        help="with the library without a runtime, also lib<model>.a, to link into programs",
    )
    parser.add_argument(
        "--dump-ir", type=Path, metavar="DIR", help="also write the network after each phase, as TVMScript"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PACKAGE", help="folder to write, or FILE.tar.zst"
    )


def run(options) -> None:
    from ..report.tables import print_package

    if options.static and options.format == "vm":
        raise BadInput("--static makes a library without a runtime", "", "add --format standalone, or both")
    target, model = target_and_model(options)
    precision = PRECISIONS[options.precision]
    from ..devices.checking import checking_device
    from ..graph.phases import dumped
    from ..workflow.compile import FORMATS, STATIC, compile_package, make_plan
    from ..workflow.imported import import_model

    console = console_of(options)
    store = None if options.untuned else records_of(options, target, console, must_exist=True)
    say_notes(console, model)
    console.print(make_plan(model, target, store, precision).describe(), markup=False)
    formats = (*FORMATS[options.format], *((STATIC,) if options.static else ()))
    with dumped(options.dump_ir):
        imported = import_model(model, precision)
        with checking_device(target, options.device, options.threads) as device:
            package = compile_package(imported, target, store, options.output, options.threads, formats, device=device)
    print_package(console, package)
    for note in store.notes if store else ():
        console.print(note, markup=False)


COMMAND = Command("compile", "cross-compile a model to a package", add_options, run)
