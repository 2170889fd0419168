"""Options shared by several commands, and the types of their values."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ..precision import FLOAT32, PRECISIONS

DEFAULT_MODEL = "shufflenet_v1_g3_x1_0"


def json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="also write the facts as JSON; - for standard output alone")


def package_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("package", type=Path, metavar="PACKAGE")


def device_options(parser: argparse.ArgumentParser, threads: bool = True) -> None:
    parser.add_argument(
        "--device", metavar="D", help="local, emulated[:CORE], rpc://HOST:PORT, tracker://HOST:PORT/KEY"
    )
    if threads:
        parser.add_argument("--threads", type=positive, default=1, metavar="N", help="threads to use on the device (1)")


def model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=DEFAULT_MODEL, metavar="M", help="zoo name, FILE.pt2 or FILE.py:factory")
    parser.add_argument("--target", required=True, metavar="T", help="see tvm-shufflenet targets")
    parser.add_argument("--weights", type=Path, metavar="FILE.pth", help="checkpoint for the model")
    parser.add_argument(
        "--classes", type=positive, metavar="N", help="classes of a zoo network (the checkpoint's, else 1000)"
    )
    parser.add_argument("--input-shape", type=shape, metavar="N,C,H,W", help="input shape (1,3,224,224)")
    names = ", ".join(PRECISIONS)
    parser.add_argument(
        "--precision",
        choices=tuple(PRECISIONS),
        default=FLOAT32.name,
        metavar="P",
        help=f"what the network computes in: {names} (float32)",
    )


def records_option(parser) -> None:
    parser.add_argument("--records", type=Path, metavar="DIR", help="your tuning records (tuning_logs/<target>)")


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def percent(text: str) -> float:
    value = float(text.strip().removesuffix("%"))
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError("write a percentage, such as 5%")
    return value


def shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 4 or min(shape) < 1:
        raise argparse.ArgumentTypeError("write four positive numbers: N,C,H,W")
    return shape
