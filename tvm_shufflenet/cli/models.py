"""The command ``models``: list the zoo, and count multiply-adds and parameters of user models."""

from __future__ import annotations

import argparse

from .command import Command
from .options import json_option
from .output import report


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "models", nargs="*", metavar="M", help="count only these: zoo names, FILE.pt2 or FILE.py:factory (the zoo)"
    )
    json_option(parser)


def run(options) -> None:
    from ..models import IMAGENET_SHAPE, is_file
    from ..report.progress import CountingProgress
    from ..report.tables import print_models
    from ..workflow.zoo_complexity import zoo_complexity

    files = [spec for spec in options.models if is_file(spec)]
    zoo = [name for name in options.models if name not in files]
    rows = []
    if zoo or not files:
        announcement = "counting multiply-adds of {} networks, once for this version"
        with CountingProgress("counting, once for this version", announcement) as progress:
            counts = zoo_complexity(zoo or None, progress)
        rows = [_complexity_row(name, IMAGENET_SHAPE, *pair) for name, pair in counts.items()]
    rows += [_file_row(spec) for spec in files]
    report(options, {"schema": 1, "models": rows}, lambda console: print_models(console, rows))


def _file_row(spec: str) -> dict:
    from ..graph.complexity import count
    from ..models import find_model
    from ..workflow.imported import import_model

    imported = import_model(find_model(spec))
    complexity = count(imported.module)
    return _complexity_row(
        imported.model.name, imported.model.input_shape, complexity.multiply_adds, complexity.parameters
    )


def _complexity_row(name: str, input_shape: tuple[int, ...], multiply_adds: int, parameters: int) -> dict:
    from ..models.zoo.papers import FIGURES

    figure = FIGURES.get(name)
    return {
        "name": name,
        "input_shape": list(input_shape),
        "multiply_adds": multiply_adds,
        "parameters": parameters,
        "paper_multiply_adds": round(figure.macs_m * 1e6) if figure else None,
        "paper": figure.source if figure else None,
    }


COMMAND = Command("models", "list the zoo: input shape, multiply-adds, parameters", add_options, run)
