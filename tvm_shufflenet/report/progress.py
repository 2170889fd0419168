"""Progress of long jobs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from ..support.activity import drawing

if TYPE_CHECKING:
    from rich.console import Console, Group, RenderableType

    from ..tuning.search.progress import Progress, TuneResult

TICKS_PER_SECOND = 2


class TuningProgress:
    """Called with a Progress after every batch; a context manager that leaves the terminal as its last call drew it."""

    def __init__(self, console: Console):
        self.console = console
        self._live = None
        self._progress: Progress | None = None
        self._since = time.monotonic()
        self._stack = contextlib.ExitStack()
        self._told: dict[str, int] = {}

    def __enter__(self) -> TuningProgress:
        if self.console.is_terminal:
            from rich.live import Live

            self._stack.enter_context(drawing())
            self._live = Live(get_renderable=self._drawn, console=self.console, refresh_per_second=TICKS_PER_SECOND)
            self._stack.enter_context(self._live)
        return self

    def __exit__(self, *_exc) -> None:
        self._stack.close()

    def _drawn(self) -> RenderableType:
        """As of the last call, and how long ago that was."""
        passed = time.monotonic() - self._since
        return f"tuning, {_clock(passed)}" if self._progress is None else _view(self._progress, passed)

    def __call__(self, progress: Progress) -> None:
        self._progress, self._since = progress, time.monotonic()
        if self._live is not None:
            self._live.refresh()
            return
        left = f", {_clock(progress.left_s)} left" if progress.left_s is not None else ""
        self.console.print(
            f"{progress.reused + progress.done}/{progress.requested} trials, {progress.failed} failed, "
            f"{_best(progress)}, {progress.trials_per_minute:.0f}/min{left} ({progress.task})",
            markup=False,
        )
        if progress.causes != self._told:
            self._told = progress.causes
            self.console.print(f"  {failures(progress)}", markup=False)


def _view(progress: Progress, passed_s: float) -> Group:
    """How far and how fast, what has come of it, and what has failed; ``passed_s`` is the progress's age."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    done = progress.reused + progress.done
    left = "" if progress.left_s is None else f"{_clock(max(0, progress.left_s - passed_s))} left"
    first = Table.grid(padding=(0, 1))
    bar = ProgressBar(progress.requested, done, width=24)
    pace = f"{done}/{progress.requested} trials, {progress.trials_per_minute:.0f}/min"
    first.add_row("tuning", bar, pace, left)
    best = Text.assemble((_best(progress), "bold"), f", now {progress.task} {_clock(passed_s)}", overflow="ellipsis")
    return Group(first, best, Text(failures(progress), "red" if progress.failed else ""))


def _best(progress: Progress) -> str:
    if progress.network_us is None:
        return f"{progress.timed}/{progress.operators} operators timed"
    return f"best {progress.network_us / 1e3:.2f} ms"


def failures(run: Progress | TuneResult) -> str:
    """How many trials failed, and of what."""
    causes = ", ".join(f"{cause} {count}" for cause, count in sorted(run.causes.items()))
    return f"{run.failed} failed" + (f" ({causes})" if causes else "")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class CountingProgress:
    """Called with how many are done and how many there are; on standard error, where it is in nobody's way.

    ``what`` stands before the bar. Where there is no terminal, the ``announcement``, if any, says how many there are.
    """

    def __init__(self, what: str, announcement: str = ""):
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._what, self._announcement = what, announcement
        self._bar = self._task = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> CountingProgress:
        return self

    def __exit__(self, *_exc) -> None:
        self._stack.close()

    def __call__(self, done: int, total: int) -> None:
        if not self.console.is_terminal:
            if done == 0 and self._announcement:
                self.console.print(self._announcement.format(total))
            return
        if self._bar is None:
            from rich.progress import Progress

            self._bar = Progress(console=self.console, transient=True)
            self._task = self._bar.add_task(self._what, total=total)
            self._stack.enter_context(drawing())
            self._stack.enter_context(self._bar)
        self._bar.update(self._task, completed=done)
