"""The command line: parses words, calls the workflow, prints what it returns. Heavy imports wait for the command."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
from pathlib import Path
from typing import NoReturn

from ..devices import SERVER_PORT
from ..errors import BadInput, DeployError, WrongResult
from ..support import activity, interrupts
from ..support.files import write_output
from ..support.without_torch import without_torch

DEFAULT_MODEL = "shufflenet_v1_g3_x1_0"
# Eight or nine trials for each operator of ShuffleNet v1: one to three minutes on two cores of a desktop.
DEFAULT_TRIALS = 256
NO_MODEL = {
    "bench",
    "clean",
    "deploy",
    "inspect",
    "profile",
    "records",
    "run",
    "serve",
}  # they start a third sooner for it
# What an interrupt leaves behind, where that is anything.
INTERRUPTED = {"tune": "interrupted; finished trials are recorded, the same command goes on from them"}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code (see errors.py)."""
    options = _parser().parse_args(arguments)
    # libtvm starts its threads at first use and never changes its mind; the host side needs one only.
    os.environ.setdefault("TVM_NUM_THREADS", "1")
    interrupted = INTERRUPTED.get(options.name, interrupts.MESSAGE)
    try:
        with interrupts.interruptible(interrupted):
            _check_files(options)
            with without_torch() if options.name in NO_MODEL else contextlib.nullcontext():
                options.command(options)
        return 0
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
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


def _check_files(options) -> None:
    """Raises BadInput, before hours are spent on what could not be kept."""
    for option in ("json", "html", *(("output",) if options.name == "run" else ())):
        name = getattr(options, option, None)
        if name is None or name == "-":
            continue
        folder, file = os.path.split(name)
        if not file or os.path.isdir(name) or not os.path.isdir(folder or "."):
            cause = "its folder does not exist, or it is one"
            raise BadInput(f"cannot write '{name}'", cause, f"name another --{option} file")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tvm-shufflenet",
        description="Tune ShuffleNet-class PyTorch models with Apache TVM and deploy them on ARM Cortex-A.",
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action=_Version, help="show this program's version, and that of TVM")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    def command(name: str, run, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=run)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return sub

    def json_option(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--json", metavar="FILE", help="also write the facts as JSON; - for standard output alone")

    def device_options(sub: argparse.ArgumentParser, threads: bool = True) -> None:
        sub.add_argument(
            "--device", metavar="D", help="local, emulated[:CORE], rpc://HOST:PORT, tracker://HOST:PORT/KEY"
        )
        if threads:
            sub.add_argument(
                "--threads", type=_positive, default=1, metavar="N", help="threads to use on the device (1)"
            )

    def model_options(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--model", default=DEFAULT_MODEL, metavar="M", help="zoo name, FILE.pt2 or FILE.py:factory")
        sub.add_argument("--target", required=True, metavar="T", help="see tvm-shufflenet targets")
        sub.add_argument("--weights", type=Path, metavar="FILE.pth", help="checkpoint for the model")
        sub.add_argument(
            "--classes", type=_positive, metavar="N", help="classes of a zoo network (the checkpoint's, else 1000)"
        )
        sub.add_argument("--input-shape", type=_shape, metavar="N,C,H,W", help="input shape (1,3,224,224)")

    def records_option(sub) -> None:
        sub.add_argument("--records", type=Path, metavar="DIR", help="your tuning records (tuning_logs/<target>)")

    models = command("models", _models, "list the zoo: input shape, multiply-adds, parameters")
    models.add_argument(
        "models", nargs="*", metavar="M", help="count only these: zoo names, FILE.pt2 or FILE.py:factory (the zoo)"
    )
    json_option(models)

    json_option(command("targets", _targets, "list the target presets"))

    doctor = command("doctor", _doctor, "show what is present and missing, and the command that installs it")
    doctor.add_argument("--target", metavar="T", help="only what this target needs, such as local")
    device_options(doctor, threads=False)
    json_option(doctor)

    clean = command("clean", _clean, "remove caches, and what killed runs left")
    clean.add_argument("--dry-run", action="store_true", help="only show them, with their sizes")
    json_option(clean)

    tune = command("tune", _tune, "search schedules on a device, then compare untuned, shipped and tuned code")
    model_options(tune)
    device_options(tune)
    tune.add_argument(
        "--strategy", choices=("template", "ansor"), default="template", help="space to search (template)"
    )
    tune.add_argument(
        "--trials", type=_positive, default=DEFAULT_TRIALS, metavar="N", help=f"trials ({DEFAULT_TRIALS})"
    )
    tune.add_argument(
        "--trial-seconds", type=_positive, default=30, metavar="S", help="a trial that takes longer is ended (30)"
    )
    tune.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the search (0)")
    records_option(tune)
    json_option(tune)

    compile_ = command("compile", _compile, "cross-compile a model to a package")
    model_options(compile_)
    source = compile_.add_mutually_exclusive_group()
    records_option(source)
    source.add_argument("--untuned", action="store_true", help="TVM's own code, without schedules of ours")
    compile_.add_argument(
        "--device", metavar="D", help="where to verify it (this machine or an emulated core, as the target wants)"
    )
    compile_.add_argument("--threads", type=_positive, default=1, metavar="N", help="threads it will run with (1)")
    compile_.add_argument(
        "--format",
        choices=("vm", "standalone", "both"),
        default="vm",
        help="a library for TVM's runtime, one without any runtime, or both (vm)",
    )
    compile_.add_argument(
        "--static",
        action="store_true",
        help="with the library without a runtime, also lib<model>.a, to link into programs",
    )
    compile_.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PACKAGE", help="folder to write, or FILE.tar.zst"
    )

    run = command("run", _run, "run a package on an input")
    run.add_argument("package", type=Path, metavar="PACKAGE")
    device_options(run)
    run.add_argument("--input", metavar="FILE", help=".npy tensor or an image; the package's reference input without")
    run.add_argument("--labels", type=Path, metavar="FILE", help="class names: one a line, or JSON")
    run.add_argument("--top", type=_positive, default=5, metavar="K", help="classes to print (5)")
    run.add_argument("--output", type=Path, metavar="OUT.npy", help="also write the output tensor")

    bench = command("bench", _bench, "time a package on a device")
    bench.add_argument("package", type=Path, metavar="PACKAGE")
    device_options(bench)
    bench.add_argument("--warmup", type=_natural, default=5, metavar="N", help="untimed runs first (5)")
    bench.add_argument("--repeat", type=_positive, default=30, metavar="N", help="samples (30)")
    json_option(bench)

    profile = command("profile", _profile, "show what each operator of a package costs on a device")
    profile.add_argument("package", type=Path, metavar="PACKAGE")
    device_options(profile)
    profile.add_argument(
        "--asm", action="store_true", help="also the hottest loop of the hottest operator, as assembly"
    )
    profile.add_argument(
        "--asm-of", action="append", default=[], metavar="OPERATOR", help="the hottest loop of this one instead"
    )
    json_option(profile)

    inspect = command("inspect", _inspect, "check a package and show what is in it")
    inspect.add_argument("package", type=Path, metavar="PACKAGE")
    json_option(inspect)

    compare = command("compare", _compare, "time tuned against shipped and untuned code, and beside other engines")
    model_options(compare)
    device_options(compare)
    compare.add_argument(
        "--repeat", type=_positive, default=10, metavar="N", help="samples; with --peers, in each of five turns (10)"
    )
    compare.add_argument(
        "--peers", nargs="?", const="all", metavar="NAME,...", help="also time other engines: these, or all of them"
    )
    compare.add_argument(
        "--baseline",
        type=Path,
        metavar="OLD.json",
        help="what an earlier --json wrote: exit code 7 if slower",
    )
    compare.add_argument("--fail-slower", type=_percent, metavar="P", help="how much slower the baseline allows (5%%)")
    compare.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a report with plots, a page that needs nothing else"
    )
    records_option(compare)
    json_option(compare)

    reproduce = command("reproduce", _reproduce, "make an experiment of the papers again, beside the paper's figures")
    reproduce.add_argument(
        "table",
        metavar="TABLE",
        help="of ShuffleNet v1: table8 (latency), groups, shuffle; of v2: g1, g2, g3, g4 (its guidelines), networks",
    )
    reproduce.add_argument("--target", metavar="T", help="see tvm-shufflenet targets (the device's own, or arm64)")
    device_options(reproduce)
    reproduce.add_argument("--sizes", metavar="HxW,...", help="input sizes, or all of the table's (its first)")
    reproduce.add_argument(
        "--trials",
        type=_natural,
        metavar="N",
        help="first search with so many trials for each operator (16 for g1 to g4, else 0)",
    )
    reproduce.add_argument("--repeat", type=_positive, default=10, metavar="N", help="samples (10)")
    records_option(reproduce)
    json_option(reproduce)
    reproduce.add_argument("--html", type=Path, metavar="FILE", help="also write a report with plots")

    deploy = command("deploy", _deploy, "copy a package to a device and measure it there, without TVM")
    deploy.add_argument("package", type=Path, metavar="PACKAGE")
    deploy.add_argument("--to", required=True, metavar="WHERE", help="adb[:SERIAL] or ssh://USER@HOST[:PORT]/DIR")
    deploy.add_argument("--threads", type=_positive, default=1, metavar="N", help="threads to use there (1)")
    deploy.add_argument("--affinity", metavar="LIST", help="CPUs to bind them to, as 0,2-3 (where the kernel likes)")
    deploy.add_argument("--warmup", type=_natural, default=5, metavar="N", help="untimed runs first (5)")
    deploy.add_argument("--repeat", type=_positive, default=30, metavar="N", help="samples (30)")
    deploy.add_argument(
        "--ssh-option", action="append", default=[], metavar="K=V", help="an option for ssh, as of ssh -o"
    )
    json_option(deploy)

    replay = command("replay", _replay, "run wrong code again that tune or compile kept a reproducer of")
    replay.add_argument("folder", type=Path, metavar="FOLDER", help="what the message named")
    device_options(replay, threads=False)

    _records_parser(command("records", None, "look after folders of tuning records"), json_option)

    serve = command("serve", _serve, "run the RPC device server on this machine")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    serve.add_argument(
        "--port", type=_natural, default=SERVER_PORT, metavar="P", help="port; 0 for any free one (9090)"
    )
    serve.add_argument("--tracker", metavar="HOST:PORT", help="register at this TVM tracker")
    serve.add_argument("--key", metavar="K", help="device key at the tracker")
    serve.add_argument("--custom-addr", metavar="A", help="address that the tracker tells clients, if not this one")
    serve.add_argument("--core", metavar="CORE", help="serve an emulated core, such as cortex-a72, instead")
    serve.add_argument(
        "--secret-file", type=Path, metavar="FILE", help="serve only who knows what is in it; see SECURITY.md"
    )
    serve.add_argument("--user", metavar="NAME", help="started as root, become this user")
    serve.add_argument("--allow-root", action="store_true", help="run clients' code as root")
    serve.add_argument(
        "--insecure", action="store_true", help="beyond loopback without a secret: whoever connects runs code here"
    )
    serve.add_argument(
        "--seccomp",
        choices=("auto", "on", "off"),
        default="auto",
        help="filter the system calls of clients' code (auto: where the kernel does; on: do not start without)",
    )
    serve.add_argument("--bundle", type=Path, metavar="DIR", help="instead write the server and its libraries to DIR")
    serve.add_argument("--arch", choices=("aarch64", "x86_64"), help="architecture of --bundle (aarch64)")
    serve.add_argument(
        "--android",
        action="store_true",
        help="with --bundle, for Android's own C library: built from TVM_HOME by the NDK in ANDROID_NDK_HOME",
    )
    return parser


def _records_parser(parser: argparse.ArgumentParser, json_option) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def action(name: str, run, text: str, folders: str | None = "+") -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=text, description=text)
        sub.set_defaults(command=run)
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        sub.add_argument("folders", nargs=folders, type=Path, metavar="DIR", help="such as tuning_logs/<target>")
        json_option(sub)
        return sub

    action("list", _records_list, "what is in folders: targets, clocks, threads, TVM versions, failures")
    action("best", _records_best, "the best record of each workload")
    merge = action("merge", _records_merge, "put the records of several folders into one")
    merge.add_argument("--into", type=Path, required=True, metavar="DIR", help="a folder, made if it is not there")
    prune = action("prune", _records_prune, "drop damaged lines and duplicates; what was there is kept as NAME~")
    prune.add_argument("--keep", type=_positive, metavar="N", help="also all but the N fastest of each workload")
    action("verify", _records_verify, "check every line, and that every schedule applies; exit code 2 where not")


class _Version(argparse.Action):
    """Looks the version up when asked, which takes longer than all of ``--help``."""

    def __init__(self, option_strings, dest, help=None):
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser, namespace, values, option_string=None) -> NoReturn:
        from importlib.metadata import version

        from ..support.toolchain import TVM_VERSION

        print(f"tvm-shufflenet {version('tvm-shufflenet')} (TVM {TVM_VERSION})")
        parser.exit()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must not be negative")
    return value


def _percent(text: str) -> float:
    value = float(text.strip().removesuffix("%"))
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError("write a percentage, such as 5%")
    return value


def _shape(text: str) -> tuple[int, ...]:
    try:
        shape = tuple(int(part) for part in text.split(","))
    except ValueError:
        shape = ()
    if len(shape) != 4 or min(shape) < 1:
        raise argparse.ArgumentTypeError("write four positive numbers: N,C,H,W")
    return shape


def _models(options) -> None:
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
    _report(options, {"schema": 1, "models": rows}, lambda console: print_models(console, rows))


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


def _targets(options) -> None:
    from ..hardware.boards import BOARDS
    from ..hardware.targets import targets
    from ..report.tables import print_targets

    presets = [target.to_json() for target in targets().values()]
    cores = [
        {"name": c.name, "clock_ghz": c.clock_ghz, "source": f"{c.source}; {c.core.source}"} for c in BOARDS.values()
    ]
    _report(options, {"schema": 1, "targets": presets, "cores": cores}, lambda c: print_targets(c, targets().values()))


def _doctor(options) -> None:
    from ..report.tables import print_abilities, print_findings
    from ..workflow.doctor import abilities, examine, install_commands

    findings = examine(options.device, options.target)
    able, commands = abilities(findings), install_commands(findings)
    facts = {"schema": 1, "findings": [finding.to_json() for finding in findings]}
    facts |= {"abilities": [ability.to_json() for ability in able], "install": commands}

    def show(console) -> None:
        print_findings(console, findings)
        print_abilities(console, able, commands)

    _report(options, facts, show)
    missing = [finding for finding in findings if finding.required and not finding.ok]
    if missing:
        raise missing[0].error


def _clean(options) -> None:
    from ..report.tables import print_remnants
    from ..workflow.cleaning import remnants, remove

    found = remnants()
    left = found if options.dry_run else [remove(remnant) for remnant in found]
    removed = sum(remnant.bytes for remnant in found) - sum(remnant.bytes for remnant in left)
    facts = {"schema": 1, "found": [remnant.to_json() for remnant in found], "removed_bytes": removed}
    _report(options, facts, lambda console: print_remnants(console, found, left, options.dry_run))


def _tune(options) -> None:
    from ..report.progress import TuningProgress
    from ..report.summary import print_summary
    from ..report.tables import print_comparison, print_tuning

    target, model = _target_and_model(options)
    with _device(options, target) as device:
        console = _console(options)
        console.print(f"device: {device.describe()}")
        _say_notes(console, model)
        from ..workflow.compare import compare_network
        from ..workflow.decide import decide_schedules
        from ..workflow.imported import import_model
        from ..workflow.tune import tune_network

        store = _records(options, target, console)
        imported = import_model(model)
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
        decided = decide_schedules(imported, target, device, store, options.threads, _announcer(console))
        if decided is not None:
            console.print(decided.describe(), markup=False)
        comparison = compare_network(imported, target, device, store, options.threads)
    facts = comparison.to_json() | {
        "strategy": options.strategy,
        "trials": {
            "requested": result.requested,
            "measured": result.measured,
            "failed": result.failed,
            "reused": result.reused,
            "causes": result.causes,
            "repeated": result.repeated,
            "noisy": result.noisy,
            "drift": result.drift,
            "per_minute": result.trials_per_minute,
        },
        "wall_s": result.wall_s,
        "decision": decided and decided.to_json(),
        "records": str(store.folder),
    }

    def show(console) -> None:
        print_comparison(console, comparison)
        print_summary(console, result, options.strategy, comparison)

    _report(options, facts, show)


def _compare(options) -> None:
    from ..report.tables import print_comparison

    target, model = _target_and_model(options)
    device = _device(options, target)
    peers = _peers(options, device)
    baseline = _baseline(options, device, model)
    with device:
        console = _console(options)
        console.print(f"device: {device.describe()}")
        _say_notes(console, model)
        from ..workflow.compare import all_libraries, compare_libraries
        from ..workflow.imported import import_model

        store = _records(options, target, console, must_exist=True)
        imported = import_model(model)
        with all_libraries(imported, target, store, device.clock, options.threads) as libraries:
            if peers:
                comparison = _compare_with_peers(options, imported, libraries, target, device, peers, console)
            else:
                comparison = compare_libraries(imported, libraries, device, options.threads, options.repeat)
            page = _comparison_page(options, imported, comparison, libraries.tuned, device, target, store)
        for note in store.notes:
            console.print(note, markup=False)
    facts, verdict = comparison.to_json(), _verdict(options, baseline, comparison)
    if verdict is not None:
        facts["baseline"] = verdict.to_json()
    _report(options, facts, lambda console: print_comparison(console, comparison, verdict))
    if page is not None:
        _write_page(page, options, console)
    if verdict is not None:
        verdict.check()


def _reproduce(options) -> None:
    from ..experiments.catalogue import find_experiment
    from ..hardware.targets import find_target, targets

    known, chosen = targets(), options.target or _target_of(options.device)
    if chosen not in known:
        find_target(chosen)  # raises, before anything heavy is imported
    experiment = find_experiment(options.table)
    experiment = experiment.at(_sizes(options.sizes, experiment))
    device = _device(options, known[chosen])
    target = find_target(chosen)
    console = _console(options)
    console.print(f"device: {device.describe()}")
    from ..experiments.run import run
    from ..report.reproduction import print_reproduction

    trials = experiment.trials if options.trials is None else options.trials
    store = _records(options, target, console, must_exist=not trials)
    with device:
        results = run(
            experiment, target, device, store, threads=options.threads, repeats=options.repeat, trials=trials,
            announce=_announcer(console),
            on_row=lambda results: _write_json(options, results.to_json()),
        )  # fmt: skip
    _report(options, results.to_json(), lambda console: print_reproduction(console, results))
    if options.html is not None:
        from ..report.reproduction_page import reproduction_page

        words = _given({"--target": target.name, "--device": device.name, "--threads": options.threads})
        words += _given({"--sizes": options.sizes, "--records": options.records, "--repeat": options.repeat})
        words += _given({"--trials": options.trials})
        page = reproduction_page(results, _typed("reproduce", options.table, *words, "--html", options.html.name))
        _write_page(page, options, console)
    failed = [row.failure for row in results.rows if row.failure]
    if failed:
        raise failed[0]


def _target_of(device: str | None) -> str:
    """The target for code of a device, where none is named: that of its own name, if there is one."""
    from ..hardware.targets import targets

    name = (device or "").removeprefix("emulated:")
    return name if name in targets() else "arm64"


def _sizes(text: str | None, experiment) -> list[tuple[int, int]]:
    if text is None:
        return experiment.sizes[:1]
    if text == "all":
        return experiment.sizes
    try:
        sizes = [tuple(int(part) for part in word.split("x")) for word in text.split(",")]
    except ValueError:
        sizes = [()]
    if any(len(size) != 2 for size in sizes):
        raise BadInput(f"'{text}' is no list of sizes", "", "write HxW,HxW or all")
    return sizes


def _write_page(page, options, console) -> None:
    files = page.write(options.html)
    count = len(files) - 1
    console.print(f"report: {options.html}, and {count} CSV file{'s' if count > 1 else ''} beside it", markup=False)


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
    model = _given({"--model": options.model, "--target": options.target, "--weights": options.weights})
    model += _given({"--classes": options.classes, "--input-shape": shape, "--records": options.records})
    on = _given({"--device": device.name, "--threads": options.threads})
    package = f"{options.html.stem}-package"
    html = _given({"--repeat": options.repeat, "--peers": options.peers, "--html": options.html.name})
    trials = {strategy: 0 for strategy in [curve.strategy for curve in curves] or ["template"]}
    for curve in curves:
        trials[curve.strategy] += len(curve.best_us)
    searches = [_given({"--strategy": name, "--trials": count or DEFAULT_TRIALS}) for name, count in trials.items()]
    threads = _given({"--threads": options.threads})

    return Commands(
        _typed("compare", *model, *on, *html),
        "\n".join(_typed("tune", *model, *on, *search) for search in searches),
        "\n".join((_typed("compile", *model, *threads, "-o", package), _typed("profile", package, *on))),
    )


def _typed(*words: str) -> str:
    """A command of ours as it is typed in a shell."""
    import shlex

    return shlex.join(["tvm-shufflenet", *words])


def _given(options: dict[str, object]) -> list[str]:
    """The words of those options that have a value."""
    return [str(word) for name, value in options.items() if value is not None for word in (name, value)]


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
    return compare_with_peers(imported, libraries, target, device, options.threads, peers, effort, _announcer(console))


def _baseline(options, device, model):
    """The baseline, which is refused here, before anything is timed, where it is one of something else."""
    if options.baseline is None:
        if options.fail_slower is not None:
            raise BadInput("--fail-slower goes with --baseline", "", "give both, or --baseline alone")
        return None
    from ..report.baseline import Setting, read_baseline, refuse_unlike
    from ..support.host import host_facts

    baseline, host = read_baseline(options.baseline), host_facts()
    machine = (host["cpu"], host["cpus"]) if device.name == "local" else None
    setting = Setting(model.name, model.input_shape, device.name, device.kind, options.threads, machine)
    refuse_unlike(baseline, setting, options.baseline)
    return baseline


def _verdict(options, baseline, comparison):
    from ..report.baseline import DEFAULT_ALLOWED_PERCENT, Verdict

    if baseline is None:
        return None
    allowed = DEFAULT_ALLOWED_PERCENT if options.fail_slower is None else options.fail_slower
    return Verdict(options.baseline, baseline.tuned_us, comparison.tuned.median_us, allowed)


def _compile(options) -> None:
    from ..report.tables import print_package

    if options.static and options.format == "vm":
        raise BadInput("--static makes a library without a runtime", "", "add --format standalone, or both")
    target, model = _target_and_model(options)
    from ..devices.checking import checking_device
    from ..workflow.compile import FORMATS, STATIC, compile_package, make_plan
    from ..workflow.imported import import_model

    console = _console(options)
    store = None if options.untuned else _records(options, target, console, must_exist=True)
    _say_notes(console, model)
    console.print(make_plan(model, target, store).describe(), markup=False)
    imported = import_model(model)
    formats = (*FORMATS[options.format], *((STATIC,) if options.static else ()))
    with checking_device(target, options.device, options.threads) as device:
        package = compile_package(imported, target, store, options.output, options.threads, formats, device=device)
    print_package(console, package)
    for note in store.notes if store else ():
        console.print(note, markup=False)


def _run(options) -> None:
    from ..report.tables import print_classes

    package, device = _package_and_device(options)
    from ..packages.inputs import read_input
    from ..workflow.run import run_package

    data = (
        package.reference_input() if options.input is None else read_input(options.input, package.manifest.input_shape)
    )
    labels = None if options.labels is None else _labels(options.labels, package.manifest.output_shape)
    console = _console(options)
    with device:
        console.print(f"device: {device.describe()}")
        output = run_package(package, device, data)
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


def _bench(options) -> None:
    from ..report.tables import print_bench

    package, device = _package_and_device(options)
    from ..workflow.bench import bench_package

    with device:
        _console(options).print(f"device: {device.describe()}")
        result = bench_package(package, device, options.threads, options.warmup, options.repeat)
    _report(options, result.to_json(), lambda console: print_bench(console, result))


def _profile(options) -> None:
    from ..report.profile import print_profile

    package, device = _package_and_device(options)
    from ..workflow.profile import profile_package

    with device:
        _console(options).print(f"device: {device.describe()}")
        result = profile_package(package, device, options.threads, options.asm, options.asm_of)
    _report(options, result.to_json(), lambda console: print_profile(console, result))


def _inspect(options) -> None:
    from ..packages.package import Package
    from ..report.inspection import facts_of, print_inspection

    package = Package(options.package)
    facts = facts_of(package)
    _report(options, facts, lambda console: print_inspection(console, facts, package))


def _deploy(options) -> None:
    from ..deploy.deployment import Settings, deploy
    from ..packages.package import Package
    from ..report.tables import print_deployed
    from ..transport import find_remote

    package = Package(options.package)
    remote = find_remote(options.to, package.manifest.model, options.ssh_option)
    settings = Settings(options.threads, options.warmup, options.repeat, options.affinity)
    console = _console(options)
    result = deploy(package, remote, settings, lambda line: console.print(line, markup=False))
    _report(options, result.to_json(), lambda console: print_deployed(console, result))


def _replay(options) -> None:
    from ..devices.checking import checking_device
    from ..verification.reproducer import read_finding, replay, target_of

    finding, console = read_finding(options.folder), _console(options)
    console.print(f"{finding.kind} {finding.name} for {finding.target}, found on {finding.device}", markup=False)
    console.print(finding.what, markup=False)
    with checking_device(target_of(finding), options.device) as device:
        if isinstance(device, DeployError):
            raise device
        if finding.kind == "network":
            text = f"its library is machine code by whoever made {options.folder}; a session of {device.name} runs it"
            console.print(text, markup=False)
        wrong = replay(options.folder, device)
    if wrong is not None:
        raise WrongResult(f"{finding.name} is wrong on {device.name}: {wrong}", "", "report the folder")
    console.print(f"{finding.name} computes on {device.name} what it should", markup=False)


def _records_list(options) -> None:
    from ..report.records import print_summary
    from ..tuning.records import upkeep

    rows = []
    for folder in map(upkeep.open_folder, options.folders):
        groups, failed = upkeep.summary(folder), dict(upkeep.failures(folder))
        rows.append(
            {
                "folder": str(folder.path),
                "groups": [group.to_json() for group in groups],
                "failed": failed,
                "skipped": [line._asdict() for line in folder.skipped],
            }
        )
    _report(options, {"schema": 1, "folders": rows}, lambda console: print_summary(console, rows))


def _records_best(options) -> None:
    from ..report.records import print_fastest
    from ..tuning.records import upkeep

    rows = [row.to_json() for folder in map(upkeep.open_folder, options.folders) for row in upkeep.fastest(folder)]
    _report(options, {"schema": 1, "records": rows}, lambda console: print_fastest(console, rows))


def _records_merge(options) -> None:
    from ..tuning.records import upkeep

    changes = upkeep.merge(options.folders, options.into)
    text = f"{options.into}: {changes.records} records and {changes.trials} failed trials added"
    _report(options, {"schema": 1, **changes.to_json()}, lambda console: console.print(text, markup=False))


def _records_prune(options) -> None:
    from ..tuning.records import upkeep

    changes = {str(folder): upkeep.prune(folder, options.keep) for folder in options.folders}
    facts = {"schema": 1, "folders": {folder: each.to_json() for folder, each in changes.items()}}

    def show(console) -> None:
        for folder, each in changes.items():
            text = f"{folder}: {each.records} records, {each.trials} trials, {each.lines} damaged lines dropped"
            console.print(text, markup=False)

    _report(options, facts, show)


def _records_verify(options) -> None:
    from ..report.progress import CountingProgress
    from ..tuning.records import upkeep

    bad = {}
    for folder in options.folders:
        with CountingProgress("applying schedules") as progress:
            bad[str(folder)] = upkeep.verify(upkeep.open_folder(folder), progress)
    facts = {"schema": 1, "folders": {folder: [line._asdict() for line in lines] for folder, lines in bad.items()}}

    def show(console) -> None:
        for folder, lines in bad.items():
            for line in lines:
                console.print(f"{folder}/{line}", markup=False)
            console.print(f"{folder}: {len(lines) or 'no'} bad lines", markup=False)

    _report(options, facts, show)
    damaged = [folder for folder, lines in bad.items() if lines]
    if damaged:
        raise BadInput(
            f"{sum(map(len, bad.values()))} lines of records cannot be used",
            "they were cut short, edited or damaged, or are of another version",
            f"tvm-shufflenet records prune {' '.join(damaged)}",
        )


def _serve(options) -> None:
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


def _package_and_device(options):
    """The package, and a device that can run it: refused here, before anything is uploaded."""
    from ..devices import find_device
    from ..hardware.targets import compiled_for, find_target
    from ..packages.package import Package

    package = Package(options.package)
    package.check_runnable()
    target = compiled_for(find_target(package.manifest.target), package.manifest.target_config)
    device = find_device(options.device, target, options.threads, match=False)
    package.check_machine(device.machine, device.name)
    return package, device


def _target_and_model(options):
    from ..hardware.targets import find_target, targets

    if options.target not in targets():
        find_target(options.target)  # raises, before anything heavy is imported
    from ..devices import find_device

    find_device(getattr(options, "device", None), targets()[options.target], getattr(options, "threads", 1))
    from ..models import find_model

    model = find_model(options.model, weights=options.weights, input_shape=options.input_shape, classes=options.classes)
    return find_target(options.target), model


def _say_notes(console, model) -> None:
    """What was decided about the model for the user."""
    for note in model.notes:
        console.print(note, markup=False)


def _device(options, target):
    from ..devices import find_device

    return find_device(options.device, target, options.threads)


def _records(options, target, console, must_exist: bool = False):
    from ..workflow.schedules import open_records

    store = open_records(target, options.records, must_exist)
    for line in store.skipped:
        console.print(f"skipped {store.folder}/{line}", markup=False)
    if store.refusal:
        console.print(store.refusal, markup=False)
    return store


def _console(options):
    """Where people's text goes: standard error when standard output carries JSON."""
    from rich.console import Console

    # No markup: names of files, devices and operators may hold brackets.
    to_stderr, wraps = getattr(options, "json", None) == "-", not sys.stdout.isatty()
    return Console(stderr=to_stderr, highlight=False, markup=False, emoji=False, soft_wrap=wraps)


def _announcer(console):
    """What says on the console, in passing, what a long command does next."""
    return lambda text: console.print(text, markup=False, style="dim")


def _report(options, facts: dict, show) -> None:
    """Print for people, and write the same facts where --json says."""
    show(_console(options))
    _write_json(options, facts, last=True)


def _write_json(options, facts: dict, last: bool = False) -> None:
    """What --json says; on standard output only the ``last`` facts."""
    if options.json == "-":
        if last:
            json.dump(facts, sys.stdout, indent=2)
            print()
    elif options.json is not None:
        try:
            write_output(options.json, (json.dumps(facts, indent=2) + "\n").encode())
        except OSError as exc:
            raise BadInput(f"cannot write {options.json}", str(exc), "name another --json file") from exc


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


if __name__ == "__main__":
    entry()
