"""How long work is watched: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from ..tuning.driver import Progress


class TuningProgress:
    """Called with a Progress after every batch; a context manager that cleans the terminal up."""

    def __init__(self, console: Console):
        self.console = console
        self._bar = self._task = None

    def __enter__(self) -> TuningProgress:
        if self.console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("tuning"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        return self

    def __exit__(self, *_exc) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        best = f"{progress.network_us / 1e3:.2f} ms" if progress.network_us else "not all operators yet"
        if self._bar is not None:
            text = f"best {best}, {progress.failed} failed, {progress.trials_per_minute:.0f}/min"
            done = progress.reused + progress.done
            self._bar.update(self._task, completed=done, total=progress.requested, description=text)
            return
        left = f", {progress.left_s:.0f} s left" if progress.left_s is not None else ""
        self.console.print(
            f"{progress.reused + progress.done}/{progress.requested} trials, {progress.failed} failed, "
            f"operators' sum {best}, {progress.trials_per_minute:.0f} trials/min{left} ({progress.task})"
        )


class CountingProgress:
    """Called with networks counted and to count; on standard error, where it is in nobody's way."""

    def __init__(self):
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self._bar = self._task = None

    def __enter__(self) -> CountingProgress:
        return self

    def __exit__(self, *_exc) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: int, total: int) -> None:
        if not self.console.is_terminal:
            if done == 0:
                self.console.print(f"counting multiply-adds of {total} networks, once for this version")
            return
        if self._bar is None:
            from rich.progress import Progress

            self._bar = Progress(console=self.console, transient=True)
            self._task = self._bar.add_task("counting, once for this version", total=total)
            self._bar.start()
        self._bar.update(self._task, completed=done)
