"""What a tuning run shows while it lasts and when it is over: within 80 columns, in colour only where it is wanted."""

from __future__ import annotations

import io

from rich.console import Console

from helpers.reproductions import A72, manifest
from tvm_shufflenet.latency import Latency
from tvm_shufflenet.report.progress import TuningProgress
from tvm_shufflenet.report.summary import print_summary
from tvm_shufflenet.tuning.search.progress import Progress, TuneResult
from tvm_shufflenet.workflow.compare import Comparison

CAUSES = {"wrong": 11, "build": 100, "crash": 12, "device": 13, "run": 14, "timeout": 15}
START = Progress(0, 8, 1000, 0, None, "pointwise11", 4.0, 0, 24, {"build": 8})
LATE = Progress(1234, 165, 9999, 1, 1234567.8, "convolution11", 7000.0, 24, 24, CAUSES)


def shown(*seen: Progress, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80, highlight=False)
    with TuningProgress(console) as progress:
        for each in seen:
            progress(each)
    return console.file.getvalue()


def plain(text: str) -> str:
    """As the characters of a terminal are read, without what colours them or moves its cursor."""
    from rich.text import Text

    return Text.from_ansi(text.replace("\r", "\n")).plain


class TestWhileItLasts:
    def test_a_terminal_has_three_lines(self, monkeypatch):
        monkeypatch.setenv("TERM", "xterm-256color")
        text = plain(shown(LATE, terminal=True))
        assert "1400/9999 trials, 12/min" in text and "11:57:06 left" in text
        assert "best 1234.57 ms, now convolution11" in text
        assert "165 failed (build 100, crash 12, device 13, run 14, timeout 15, wrong 11)" in text
        assert max(map(len, text.splitlines())) <= 80 and "…" not in text

    def test_elsewhere_a_line_for_each_batch_and_one_for_new_failures(self):
        text = shown(START, START, LATE, terminal=False)
        lines = text.splitlines()
        assert lines[0] == "8/1000 trials, 8 failed, 0/24 operators timed, 120/min, 8:16 left (pointwise11)"
        assert lines[1] == "  8 failed (build 8)" and "\x1b" not in text
        assert sum(line.startswith("  ") for line in lines) == 2 and max(map(len, lines)) <= 80

    def test_colour_is_for_terminals_that_want_it(self, coloured):
        assert ("\x1b[31m" in shown(LATE, terminal=True)) == coloured


def test_the_summary_says_all_that_an_issue_needs():
    latencies = (Latency((1e3 * ms,), "modelled") for ms in (263.876, 26.959))
    comparison = Comparison(manifest(137), A72, 2, *latencies, 6.9e-7)
    error = "LLVM: cannot select\n  " + "x" * 200
    result = TuneResult(256, 250, 6, 0, 99.0, {"wrong": 2, "build": 4}, error, None, ())
    console = Console(file=io.StringIO(), force_terminal=True, width=40)
    print_summary(console, result, "template", comparison)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80 and "\x1b" not in text
    read = " ".join(text.split())
    for part in (
        "model net, input 1x3x224x224 float32", "target arm64", "device emulated:cortex-a72",
        "clock modelled, 4.7 % off on average", "threads 2", "tvm-shufflenet", "apache-tvm", "torch", "Python",
        "250 measured, 6 failed (build 4, wrong 2), 0 reused", "26.959 ms tuned, 263.876 ms TVM untuned, modelled",
        "9.79 times as fast", "6.9e-07 against PyTorch", "LLVM: cannot select",
    ):  # fmt: skip
        assert part in read
