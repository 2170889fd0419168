"""The command ``run``: run a package on an input."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import BadInput
from .command import Command
from .options import device_options, package_argument, positive
from .output import console_of
from .subjects import package_and_device


def add_options(parser: argparse.ArgumentParser) -> None:
    package_argument(parser)
    device_options(parser)
    parser.add_argument(
        "--input", metavar="FILE", help=".npy tensor or an image; the package's reference input without"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="class names: one a line, or JSON")
    parser.add_argument("--top", type=positive, default=5, metavar="K", help="classes to print (5)")
    parser.add_argument("--output", type=Path, metavar="OUT.npy", help="also write the output tensor")


def run(options) -> None:
    from ..report.tables import print_classes

    package, device = package_and_device(options)
    from ..packages.inputs import read_input
    from ..workflow.run import run_package

    (source,), (result,) = package.manifest.inputs, package.manifest.outputs
    inputs = (
        package.inputs
        if options.input is None
        else {source.name: read_input(options.input, source.shape, source.dtype)}
    )
    labels = None if options.labels is None else _labels(options.labels, result.shape)
    console = console_of(options)
    with device:
        console.print(f"device: {device.describe()}")
        output = run_package(package, device, inputs)[result.name]
    if options.output is not None:
        from ..packages.inputs import write_array

        write_array(options.output, output)
    print_classes(console, output, options.top, labels)


def _labels(path: Path, output_shape: tuple[int, ...]) -> list[str]:
    from ..packages.labels import read_labels
    from ..report.tables import is_classification

    if not is_classification(output_shape):
        raise BadInput(f"the network answers {output_shape}, not a list of classes", "", "leave --labels out")
    return read_labels(path, output_shape[1])


COMMAND = Command("run", "run a package on an input", add_options, run, writes=("output",), without_torch=True)
