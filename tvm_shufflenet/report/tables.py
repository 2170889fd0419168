"""Tables for the terminal, 80 columns wide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import ToolMissing
from ..text import counted
from .grid import milliseconds, new_table, print_noise, print_unmodelled

if TYPE_CHECKING:
    import numpy as np
    from rich.console import Console

    from ..deploy.deployment import Deployed
    from ..hardware.targets import Target
    from ..latency import Latency
    from ..packages.package import Package
    from ..tuning.records.store import RecordStore
    from ..tuning.search.progress import TuneResult
    from ..workflow.bench import Bench
    from ..workflow.cleaning import Remnant
    from ..workflow.compare import Comparison
    from ..workflow.doctor import Ability, Requirement
    from .baseline import Verdict


def print_models(console: Console, rows: list[dict]) -> None:
    table = new_table("model", "input", "mult-adds", "paper", "parameters", left=2)
    for row in rows:
        paper = f"{row['paper_multiply_adds'] / 1e6:.0f} M" if row["paper_multiply_adds"] else ""
        shape = "x".join(map(str, row["input_shape"]))
        table.add_row(
            row["name"], shape, f"{row['multiply_adds'] / 1e6:.1f} M", paper, f"{row['parameters'] / 1e6:.2f} M"
        )
    console.print(table)


def print_targets(console: Console, targets: Iterable[Target]) -> None:
    table = new_table("target", "cpu", "cores", "emulated as", "what it is", left=5)
    for target in targets:
        table.add_row(target.name, target.mcpu, str(target.num_cores), target.board or "-", target.note)
    console.print(table)


def print_requirements(console: Console, requirements: list[Requirement]) -> None:
    for requirement in requirements:
        if requirement.ok:
            console.print(f"ok       {requirement.name}: {requirement.found}", markup=False)
        elif not isinstance(requirement.error, ToolMissing):
            console.print(
                f"failed   {requirement.name}: {requirement.error.what}; {requirement.error.cause}", markup=False
            )
        else:
            word = "missing " if requirement.required else "optional"
            install = requirement.error.next_step
            console.print(f"{word} {requirement.name} ({requirement.purpose}); install: {install}", markup=False)


def print_abilities(console: Console, abilities: list[Ability], commands: list[str]) -> None:
    """What works now, what does not, and the commands that bring all that is missing."""
    works = [ability.what for ability in abilities if not ability.missing]
    console.print(f"works now: {'; '.join(works) or 'nothing'}", markup=False)
    for ability in abilities:
        if ability.missing:
            console.print(f"does not: {ability.what}, for want of {', '.join(ability.missing)}", markup=False)
    for command in commands:
        console.print(f"to install what is missing: {command}", markup=False)


def print_remnants(console: Console, found: list[Remnant], left: list[Remnant], dry_run: bool) -> None:
    table = new_table("what", "entries", "MB", left=1)
    for remnant in found:
        table.add_row(remnant.what, str(len(remnant.paths)), f"{remnant.bytes / 1e6:.1f}")
    if found:
        console.print(table)
    for folder in sorted({str(path.parent) for remnant in found for path in remnant.paths}):
        console.print(f"in {folder}", markup=False)
    total, kept = (sum(remnant.bytes for remnant in each) / 1e6 for each in (found, left))
    if dry_run:
        console.print(f"{total:.1f} MB can be removed: tvm-shufflenet clean")
        return
    console.print(f"{total - kept:.1f} MB removed")
    for reason in sorted({remnant.kept for remnant in left if remnant.kept}):
        console.print(f"{kept:.1f} MB kept: {reason}", markup=False)


def print_tuning(console: Console, result: TuneResult, store: RecordStore) -> None:
    from ..packages.operator_text import shape_text  # with NumPy, which tables of names have no use for
    from ..tuning.measuring.health import DRIFT

    table = new_table("operator", "what it is", "n", "trials", "best us", "sum us", "GFLOP/s", left=2)
    measured = sorted((t for t in result.tasks if t.trials), key=lambda task: -task.cost_seconds)
    for task in measured:
        rate = task.flops / task.best_seconds / 1e9 if task.best_seconds else 0.0
        table.add_row(
            task.name,
            shape_text(task.name, [shape for shape, _ in task.arguments]),
            str(task.weight),
            str(task.trials),
            f"{task.best_seconds * 1e6:.1f}",
            f"{task.cost_seconds * 1e6:.1f}",
            f"{rate:.1f}",
        )
    console.print(table)
    generated = [task.name for task in measured if task.space != "template"]
    if result.rule_kind and generated:
        which = "all" if len(generated) == len(measured) else ", ".join(generated)
        console.print(f"generated, by TVM's own sketches with its {result.rule_kind} rules: {which}", markup=False)
    left_out = [task.name for task in result.tasks if not task.trials]
    if left_out:
        console.print(f"no trial, for lack of --trials: {', '.join(left_out)}")
    console.print(
        f"{result.measured} trials measured, {result.failed} failed, {result.reused} reused, "
        f"{result.wall_s:.0f} s, {result.trials_per_minute:.0f} trials a minute; records in {store.folder}"
    )
    if result.noisy:
        console.print(f"noisy: {result.noisy} trials, whose samples differ by over 5 % however often they were taken")
    if result.drift > DRIFT:
        console.print(
            f"drift: the device was {100 * (result.drift - 1):.0f} % slower than at its best; heat, or another program"
        )
    if result.repeated:
        console.print(f"repeated: {result.repeated} attempts that a fault ended, of the device or on the way to it")
    for cause, count in result.causes.items():
        console.print(f"failed by {cause}: {count}")
    if result.first_error:
        console.print(f"first error: {result.first_error}", markup=False)


def print_comparison(console: Console, comparison: Comparison, verdict: Verdict | None = None) -> None:
    if comparison.contest is None:
        _print_own(console, comparison)
    else:
        from .peers import print_contest

        print_contest(console, comparison.contest)
    if comparison.tuned.kind == "modelled":
        off = comparison.device.model_error_percent
        quality = "not calibrated" if off is None else f"about {off:.0f} % off on average"
        console.print(f"modelled latencies: the clock of the emulated core is a model, {quality}")
    error, allowed = comparison.max_abs_err, comparison.tolerance
    console.print(f"{speedups(comparison)}; largest error against PyTorch {error:.2g}, {allowed:.2g} allowed")
    print_blind(console, comparison.blind)
    plain = [operator.name for operator in comparison.operators if operator.schedule != "record"]
    if plain:
        console.print(f"operators without a record: {', '.join(plain)}")
    if verdict is not None:
        console.print(verdict.describe(), markup=False)


# The code of a comparison, in words.
CODE = {"untuned": "TVM untuned", "shipped": "shipped", "tuned": "tuned"}


def _print_own(console: Console, comparison: Comparison) -> None:
    threads = counted(comparison.threads, "thread")
    console.print(f"{comparison.model} on {comparison.device.name}, {threads}")
    table = new_table(f"{comparison.tuned.kind}, ms", "median", "min", "p90", "samples")
    for name, latency in comparison.latencies.items():
        table.add_row(
            CODE[name], *milliseconds(latency.median_us, latency.min_us, latency.percentile_us(90)), _samples(latency)
        )
    console.print(table)
    print_noise(console, {CODE[name]: latency.noise for name, latency in comparison.latencies.items()})


def speedups(comparison: Comparison) -> str:
    """Tuned over untuned code, and over what is shipped."""
    if comparison.gain is None:
        return f"speedup {comparison.speedup:.2f}"
    shipped = "tuned is what is shipped" if comparison.gain == 1 else f"{comparison.gain:.3f} against what is shipped"
    return f"speedup {comparison.speedup:.2f} against TVM untuned, {shipped}"


def _samples(latency: Latency) -> str:
    return str(len(latency.samples_us))


# What schedules an operator, as in a package's manifest, and in words.
SCHEDULED = {
    "record": "scheduled by records",
    "near record": "after a near one",
    "template": "by a template's default",
    "none": "plain",
}


def print_package(console: Console, package: Package) -> None:
    manifest = package.manifest
    size = package.library.stat().st_size
    console.print(f"{package.path}: {manifest.library}, {size / 1e6:.2f} MB for {manifest.machine}", markup=False)
    if manifest.standalone is not None:
        files = [name for name in manifest.standalone.files if name.endswith((".so", ".a", "_bench"))]
        sizes = ", ".join(f"{name} {(package.folder / name).stat().st_size / 1e6:.2f} MB" for name in files)
        console.print(f"standalone: {sizes}, with headers, wrappers and examples", markup=False)
    counts = Counter(operator.schedule for operator in manifest.operators)
    console.print(f"operators: {', '.join(f'{counts[kind]} {words}' for kind, words in SCHEDULED.items())}")
    console.print(str(manifest.verified), markup=False)


def print_blind(console: Console, blind: str | None) -> None:
    """A latency of a network that no check can tell a wrong library of is shown, and so is that."""
    if blind is not None:
        console.print(f"not verified: {blind}", markup=False)


def print_bench(console: Console, bench: Bench) -> None:
    latency = bench.latency
    table = new_table(f"{latency.kind}, ms", "median", "min", "p90", "p99", "samples")
    values = (latency.median_us, latency.min_us, latency.percentile_us(90), latency.percentile_us(99))
    table.add_row(bench.package.manifest.model, *milliseconds(*values), _samples(latency))
    console.print(table)
    print_noise(console, {"": latency.noise})
    cold = f"first inference {bench.cold_us / 1e3:.3f} ms, " if bench.cold_us else ""
    console.print(
        f"{cold}weights and activations {bench.peak_memory_bytes / 1e6:.2f} MB; largest error against PyTorch "
        f"{bench.max_abs_err:.2g}, {bench.package.manifest.tolerance:.2g} allowed"
    )
    print_blind(console, bench.blind)
    print_unmodelled(console, bench.cost)


def print_deployed(console: Console, deployed: Deployed) -> None:
    timing, device = deployed.timing, deployed.timing.device
    copied = (
        f"{len(deployed.copied)} files copied, {deployed.sent_bytes / 1e6:.2f} MB, {len(deployed.unchanged)} unchanged"
    )
    console.print(f"{deployed.to}, {deployed.folder}: {copied}; all hashes match there", markup=False)
    known = [f"{key} {device[key]}" for key in ("model", "kernel", "governor") if device.get(key)]
    console.print(", ".join([*known, counted(timing.threads, "thread")]), markup=False)
    table = new_table("measured, ms", "median", "min", "p90", "p99", "samples")
    latency = timing.latency_us
    values = [f"{latency[key] / 1e3:.3f}" if key in latency else "" for key in ("median", "min", "p90", "p99")]
    table.add_row(deployed.package.manifest.model, *values, f"{latency.get('samples', 0):.0f}")
    console.print(table)
    print_noise(console, {"": deployed.noise})
    cold = f"first inference {timing.cold_us / 1e3:.3f} ms, " if timing.cold_us else ""
    memory = f"peak memory {timing.peak_memory_bytes / 1e6:.2f} MB, " if timing.peak_memory_bytes else ""
    console.print(f"{cold}{memory}output as expected; noted in {deployed.package.path}", markup=False)


def print_classes(console: Console, output: np.ndarray, top: int, labels: list[str] | None = None) -> None:
    """The ``top`` largest outputs of each image of the batch, as class and value; of a map, its shape and range."""
    if not is_classification(output.shape):
        console.print(f"output {'x'.join(map(str, output.shape))}, from {output.min():.4f} to {output.max():.4f}")
        return
    for index, row in enumerate(output.reshape(output.shape[0], -1)):
        best = (-row).argsort(kind="stable")[:top]
        names = [f"class {k}" if labels is None else f"{labels[k]} (class {k})" for k in map(int, best)]
        classes = ", ".join(f"{name}: {row[k]:.4f}" for name, k in zip(names, best, strict=True))
        console.print(f"image {index}: {classes}", markup=False)


def is_classification(shape: tuple[int, ...]) -> bool:
    """Whether an output is one number for each class and image: (N, classes), perhaps followed by ones."""
    return len(shape) >= 2 and all(dim == 1 for dim in shape[2:])
