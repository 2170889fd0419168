"""Fits the modelled clock to latencies that ncnn's users published for boards, and says how far it is off.

    python benchmarks/calibrate.py --data ../shared/calibration
    python benchmarks/calibrate.py --dumps /tmp/dumps --json calibration.json --plot docs/images/calibration.svg

Every network is run once by ncnn's aarch64 wheel on the emulated core and counted. Two constants are fitted for each
board, the scale of the core's cycles and the time of a DRAM line, to the sum of squared relative errors. Each network
is then predicted by the constants that all others give: the mean of these errors is what the device says of itself.
``--data`` holds published.json and models/*.param; ``--dumps`` keeps what was counted, so that a second run only fits.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import program

from tvm_shufflenet.clock.counts import read_counts
from tvm_shufflenet.clock.cycles import CycleModel, Loop
from tvm_shufflenet.emulator.process import plugin_argument
from tvm_shufflenet.hardware.boards import Board, find_board
from tvm_shufflenet.peers.catalogue import PEERS
from tvm_shufflenet.peers.guest import guest_command, guest_folder
from tvm_shufflenet.peers.sysroot import arm64_packages, arm64_python

HERE = Path(__file__).parent
BOARDS = {"raspberry-pi-4b": "cortex-a72", "raspberry-pi-3b-plus": "cortex-a53"}
RUNNER = HERE / "run_definition.py"
# Physics leaves no more room: llvm-mca's cycles may be off by a fifth, a DRAM line takes between 64 bytes at 32 GB/s
# and at 1.3 GB/s.
SCALE_LIMITS, LINE_LIMITS = (0.8, 1.2), (2.0, 50.0)


@dataclass(frozen=True)
class Constants:
    compute_scale: float
    dram_line_ns: float


@dataclass(frozen=True)
class Row:
    """One network on one board, latencies in ms. ``left_out`` is predicted without the row itself."""

    network: str
    published: float
    modelled: float
    left_out: float

    @property
    def error_percent(self) -> float:
        return 100 * (self.modelled / self.published - 1)

    @property
    def left_out_error_percent(self) -> float:
        return 100 * (self.left_out / self.published - 1)


@dataclass(frozen=True)
class Calibration:
    board: str
    core: str
    constants: Constants
    rows: tuple[Row, ...]

    @property
    def mean_error_percent(self) -> float:
        return sum(abs(row.left_out_error_percent) for row in self.rows) / len(self.rows)

    @property
    def worst_error_percent(self) -> float:
        return max(abs(row.left_out_error_percent) for row in self.rows)

    def line(self) -> str:
        fitted = self.constants
        return (
            f"{self.board} ({self.core}): compute scale {fitted.compute_scale:.2f}, DRAM line {fitted.dram_line_ns:.1f}"
            f" ns; left out, mean error {self.mean_error_percent:.1f} %, worst {self.worst_error_percent:.1f} %"
        )


def heavy(loops: Sequence[Loop], board: Board) -> list[Loop]:
    """The loops that take all but a thousandth of the time: the many others would only slow the fit down."""
    by_time = sorted(loops, key=lambda loop: -loop.time(board).cycles)
    left = 0.999 * sum(loop.time(board).cycles for loop in by_time)
    kept = []
    for loop in by_time:
        if left <= 0:
            break
        kept.append(loop)
        left -= loop.time(board).cycles
    return kept


def latency_ms(loops: Sequence[Loop], board: Board, constants: Constants) -> float:
    core = replace(board.core, compute_scale=constants.compute_scale)
    board = replace(board, core=core, dram_line_ns=constants.dram_line_ns)
    return sum(loop.time(board).cycles for loop in loops) / board.clock_ghz / 1e6


def fit(networks: Sequence[tuple[Sequence[Loop], float]], board: Board, start: Constants) -> Constants:
    """The constants with the smallest sum of squared relative errors: each in turn by golden sections, until both
    stand still.

    Less time in the core and more in memory explain these latencies almost equally well. So llvm-mca's own figure, a
    scale of 1, is one more observation, worth as much as a network.
    """

    def badness(constants: Constants) -> float:
        errors = [latency_ms(loops, board, constants) / published - 1 for loops, published in networks]
        return sum(error**2 for error in errors) + (constants.compute_scale - 1) ** 2

    constants = start
    while True:
        before = constants
        for name, limits in (("compute_scale", SCALE_LIMITS), ("dram_line_ns", LINE_LIMITS)):
            constants = _best(constants, name, limits, badness)
        if abs(constants.dram_line_ns - before.dram_line_ns) < 0.01:
            return constants


def _best(constants: Constants, name: str, limits: tuple[float, float], badness) -> Constants:
    value = _minimum(lambda value: badness(replace(constants, **{name: value})), *limits)
    return replace(constants, **{name: value})


def _minimum(function, low: float, high: float) -> float:
    ratio = (5**0.5 - 1) / 2
    inner, outer = high - ratio * (high - low), low + ratio * (high - low)
    at_inner, at_outer = function(inner), function(outer)
    while high - low > 2e-3:
        if at_inner < at_outer:
            high, outer, at_outer = outer, inner, at_inner
            inner = high - ratio * (high - low)
            at_inner = function(inner)
        else:
            low, inner, at_inner = inner, outer, at_outer
            outer = low + ratio * (high - low)
            at_outer = function(outer)
    return (low + high) / 2


def calibrate(name: str, board: Board, networks: dict[str, tuple[Sequence[Loop], float]]) -> Calibration:
    everything = list(networks.values())
    constants = fit(everything, board, Constants(board.core.compute_scale, board.dram_line_ns))
    rows = []
    for name, (loops, published) in networks.items():
        others = [network for other, network in networks.items() if other != name]
        left_out = latency_ms(loops, board, fit(others, board, constants))
        rows.append(Row(name, published, latency_ms(loops, board, constants), left_out))
    return Calibration(name, board.name, constants, tuple(rows))


def count(board: Board, definition: Path, size: int, dump: Path) -> None:
    """Count one warm inference of a network on the emulated core. Raises DeployError, RuntimeError."""
    python = arm64_python(_announce)
    site = arm64_packages("ncnn", PEERS["ncnn"].guest_pins, lambda site: None, _announce)
    with guest_folder(board, RUNNER, python, site) as folder:
        shutil.copy(definition, folder / "network.param")
        command = guest_command(board, RUNNER, ["-plugin", plugin_argument(board.core)])
        done = subprocess.run(
            [*command, "network.param", str(size)], env={}, cwd=folder, capture_output=True, text=True, errors="replace"
        )
        dumps = list((folder / "counts").glob("*.1"))
        if done.returncode != 0 or len(dumps) != 1:
            raise RuntimeError(f"{definition.stem} did not run on the emulated core: {done.stderr.strip()[-300:]}")
        shutil.copy(dumps[0], dump)


def table(calibration: Calibration) -> str:
    heads = ("network", "published (ms)", "modelled (ms)", "error", "left out (ms)", "error")
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for row in calibration.rows:
        lines.append(
            f"| {row.network} | {row.published:.1f} | {row.modelled:.1f} | {row.error_percent:+.1f} % "
            f"| {row.left_out:.1f} | {row.left_out_error_percent:+.1f} % |"
        )
    return "\n".join(lines)


def plot(calibrations: Sequence[Calibration], file: Path) -> None:
    """Left-out predictions against published latencies, both axes logarithmic, the lines are equality and 25 % off."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "calibration"  # the same figures, the same file
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 5), layout="constrained")
    limits = (25, 600)
    axes.plot(limits, limits, color="grey", linewidth=1)
    for factor in (0.75, 1.25):
        axes.plot(limits, [factor * limit for limit in limits], color="grey", linewidth=0.5, linestyle="dashed")
    for calibration, marker in zip(calibrations, "os^v", strict=False):
        published = [row.published for row in calibration.rows]
        label = f"{calibration.board}: {calibration.mean_error_percent:.1f} % mean error"
        axes.scatter(published, [row.left_out for row in calibration.rows], marker=marker, s=20, label=label)
    axes.set(xscale="log", yscale="log", xlim=limits, ylim=limits, xlabel="published (ms)")
    axes.set_ylabel("modelled, the network left out of the fit (ms)")
    axes.legend()
    figure.savefig(file, metadata={"Date": None})


def _announce(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "calibration")
    parser.add_argument("--boards", default=",".join(BOARDS), help=f"of {', '.join(BOARDS)}")
    parser.add_argument("--dumps", type=Path, help="keep the counts here, and use those that are here")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, help="an SVG")
    options = parser.parse_args()
    published = json.loads((options.data / "published.json").read_text())
    calibrations = []
    with tempfile.TemporaryDirectory() as temporary:
        dumps = options.dumps or Path(temporary)
        dumps.mkdir(parents=True, exist_ok=True)
        for name in options.boards.split(","):
            board = find_board(BOARDS[name])
            model, networks = CycleModel(board), {}
            for network, latency in published["latency_ms"][name].items():
                dump = dumps / f"{board.name}.{network}"
                if not dump.exists():
                    _announce(f"{board.name}: {network}")
                    count(board, options.data / "models" / f"{network}.param", published["input_size"][network], dump)
                networks[network] = heavy(model.loops(read_counts(dump)), board), latency
            calibrations.append(calibrate(name, board, networks))
            print(calibrations[-1].line(), table(calibrations[-1]), sep="\n\n", end="\n\n", flush=True)
    if options.json:
        facts = [
            asdict(each) | {"mean": each.mean_error_percent, "worst": each.worst_error_percent} for each in calibrations
        ]
        options.json.write_text(json.dumps(facts, indent=1) + "\n")
    if options.plot:
        options.plot.parent.mkdir(parents=True, exist_ok=True)
        plot(calibrations, options.plot)
    return 0


if __name__ == "__main__":
    program.run(main)
