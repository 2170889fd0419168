"""The command ``tune``: search schedules, then compare."""

from __future__ import annotations

import argparse

from ..precision import PRECISIONS
from .command import Command
from .options import device_options, json_option, model_options, positive, records_option
from .output import announcer, console_of, report, say_notes
from .subjects import device_of, records_of, target_and_model

# Eight or nine trials for each operator of ShuffleNet v1: one to three minutes on two cores of a desktop.
DEFAULT_TRIALS = 256
INTERRUPTED = "interrupted; finished trials are recorded, the same command goes on from them"


def add_options(parser: argparse.ArgumentParser) -> None:
    model_options(parser)
    device_options(parser)
    parser.add_argument(
        "--strategy", choices=("template", "ansor"), default="template", help="space to search (template)"
    )
    parser.add_argument(
        "--trials", type=positive, default=DEFAULT_TRIALS, metavar="N", help=f"trials ({DEFAULT_TRIALS})"
    )
    parser.add_argument(
        "--trial-seconds", type=positive, default=30, metavar="S", help="a trial that takes longer is ended (30)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the search (0)")
    records_option(parser)
    json_option(parser)


def run(options) -> None:
    from ..report.progress import TuningProgress
    from ..report.summary import print_summary
    from ..report.tables import print_comparison, print_tuning

    target, model = target_and_model(options)
    with device_of(options, target) as device:
        console = console_of(options)
        console.print(f"device: {device.describe()}")
        say_notes(console, model)
        from ..report.documents import ComparisonDocument, DecisionDocument, Trials
        from ..workflow.compare import compare_network
        from ..workflow.decide import decide_schedules
        from ..workflow.imported import import_model
        from ..workflow.tune import tune_network

        store = records_of(options, target, console)
        imported = import_model(model, PRECISIONS[options.precision])
        store.prepare()
        for note in store.notes:
            console.print(note, markup=False)
        with TuningProgress(console) as progress:
            result = tune_network(
                imported.fused(target),
                device,
                store,
                strategy=options.strategy,
                trials=options.trials,
                seed=options.seed,
                threads=options.threads,
                trial_seconds=options.trial_seconds,
                on_progress=progress,
            )
        print_tuning(console, result, store)
        decided = decide_schedules(imported, target, device, store, options.threads, announcer(console))
        if decided is not None:
            console.print(decided.describe(), markup=False)
        comparison = compare_network(imported, target, device, store, options.threads)
    document = ComparisonDocument.of(
        comparison, strategy=options.strategy, trials=Trials.of(result), wall_s=result.wall_s,
        decision=DecisionDocument.of(decided), records=str(store.folder),
    )  # fmt: skip

    def show(console) -> None:
        print_comparison(console, comparison)
        print_summary(console, result, options.strategy, comparison)

    report(options, document, show)


COMMAND = Command(
    "tune",
    "search schedules on a device, then compare untuned, shipped and tuned code",
    add_options,
    run,
    interrupted=INTERRUPTED,
)
