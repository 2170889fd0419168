"""The command ``compare``: time tuned, shipped and untuned code, and other engines."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import BadInput
from ..precision import PRECISIONS
from .command import Command
from .options import device_options, json_option, model_options, percent, positive, records_option
from .output import announcer, console_of, given, report, say_notes, typed, write_page
from .subjects import device_of, records_of, target_and_model
from .tune import DEFAULT_TRIALS


def add_options(parser: argparse.ArgumentParser) -> None:
    model_options(parser)
    device_options(parser)
    parser.add_argument(
        "--repeat", type=positive, default=10, metavar="N", help="samples; with --peers, in each of five turns (10)"
    )
    parser.add_argument(
        "--peers", nargs="?", const="all", metavar="NAME,...", help="also time other engines: these, or all of them"
    )
    parser.add_argument(
        "--baseline", type=Path, metavar="OLD.json", help="what an earlier --json wrote: exit code 7 if slower"
    )
    parser.add_argument("--fail-slower", type=percent, metavar="P", help="how much slower the baseline allows (5%%)")
    parser.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a report with plots, a page that needs nothing else"
    )
    records_option(parser)
    json_option(parser)


def run(options) -> None:
    from ..report.tables import print_comparison

    target, model = target_and_model(options)
    device = device_of(options, target)
    peers = _peers(options, device)
    with device:
        baseline = _baseline(options, device, model)  # only now a served core has said which one it is
        console = console_of(options)
        console.print(f"device: {device.describe()}")
        say_notes(console, model)
        from ..report.documents import ComparisonDocument, VerdictDocument
        from ..workflow.compare import all_libraries, compare_libraries
        from ..workflow.imported import import_model

        store = records_of(options, target, console, must_exist=True)
        imported = import_model(model, PRECISIONS[options.precision])
        with all_libraries(imported, target, store, device.clock, options.threads) as libraries:
            if peers:
                comparison = _compare_with_peers(options, imported, libraries, target, device, peers, console)
            else:
                comparison = compare_libraries(imported, libraries, device, options.threads, options.repeat)
            page = _comparison_page(options, imported, comparison, libraries.tuned, device, target, store)
        for note in store.notes:
            console.print(note, markup=False)
    verdict = _verdict(options, baseline, comparison)
    more = {} if verdict is None else {"baseline": VerdictDocument.of(verdict)}
    document = ComparisonDocument.of(comparison, **more)
    report(options, document, lambda console: print_comparison(console, comparison, verdict))
    if page is not None:
        write_page(page, options, console)
    if verdict is not None:
        verdict.check()


def _comparison_page(options, imported, comparison, package, device, target, store):
    """The page of --html, None without it: it takes a profile of the tuned code, too."""
    if options.html is None:
        return None
    from ..report.comparison_page import comparison_page
    from ..tuning.records.journal import Setting
    from ..tuning.search.curve import curves
    from ..workflow.profile import profile_package

    profile = profile_package(package, device, options.threads)
    tasks = imported.fused(target).tasks
    found = list(curves(tasks, store, Setting(device.clock, options.threads)))
    size = package.library.stat().st_size
    return comparison_page(comparison, profile, found, size, _commands(options, device, found))


def _commands(options, device, curves):
    """What makes the figures of a comparison's page anew."""
    from ..report.comparison_page import Commands

    shape = options.input_shape and ",".join(map(str, options.input_shape))
    model = given({"--model": options.model, "--target": options.target, "--weights": options.weights})
    model += given({"--classes": options.classes, "--input-shape": shape, "--records": options.records})
    on = given({"--device": device.spec, "--threads": options.threads})
    package = f"{options.html.stem}-package"
    html = given({"--repeat": options.repeat, "--peers": options.peers, "--html": options.html.name})
    trials = {strategy: 0 for strategy in [curve.strategy for curve in curves] or ["template"]}
    for curve in curves:
        trials[curve.strategy] += len(curve.best_us)
    searches = [given({"--strategy": name, "--trials": count or DEFAULT_TRIALS}) for name, count in trials.items()]
    threads = given({"--threads": options.threads})

    return Commands(
        typed("compare", *model, *on, *html),
        "\n".join(typed("tune", *model, *on, *search) for search in searches),
        "\n".join((typed("compile", *model, *threads, "-o", package), typed("profile", package, *on))),
    )


def _peers(options, device) -> list:
    """The engines of --peers. A wrong word is refused here, before anything is built."""
    if options.peers is None:
        return []
    from ..peers.comparison import peers_for

    return peers_for(options.peers, device, options.threads)


def _compare_with_peers(options, imported, libraries, target, device, peers, console):
    from ..peers.comparison import compare_with_peers
    from ..peers.contest import Effort

    effort = Effort(samples=options.repeat)
    return compare_with_peers(imported, libraries, target, device, options.threads, peers, effort, announcer(console))


def _baseline(options, device, model):
    """The baseline, which is refused here, before anything is timed, where it is one of something else."""
    if options.baseline is None:
        if options.fail_slower is not None:
            raise BadInput("--fail-slower goes with --baseline", "", "give both, or --baseline alone")
        return None
    from ..report.baseline import Conditions, read_baseline, refuse_unlike
    from ..support.host import host_facts

    baseline, host = read_baseline(options.baseline), host_facts()
    machine = (host["cpu"], host["cpus"]) if device.name == "local" else None
    conditions = Conditions(model.name, model.input_shape, device.name, device.kind, options.threads, machine)
    refuse_unlike(baseline, conditions, options.baseline)
    return baseline


def _verdict(options, baseline, comparison):
    from ..report.baseline import DEFAULT_ALLOWED_PERCENT, Verdict

    if baseline is None:
        return None
    allowed = DEFAULT_ALLOWED_PERCENT if options.fail_slower is None else options.fail_slower
    return Verdict(options.baseline, baseline.tuned_us, comparison.tuned.median_us, allowed)


COMMAND = Command("compare", "time tuned against shipped and untuned code, and beside other engines", add_options, run)
