"""Progress of long work: a bar on a terminal, plain lines elsewhere; on stderr either way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[int], None]

_LINE_EVERY_S = 15.0


def ignore(_count: int) -> None:
    """An Advance for those who show no progress."""


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.1f}/s" if speed else "", style="progress.data.speed")


_caught: ContextVar[list[str] | None] = ContextVar("caught", default=None)


def note(text: str) -> None:
    """One line beside the progress, for what must not pass unseen."""
    caught = _caught.get()
    if caught is None:
        Console(stderr=True).print(text, highlight=False, soft_wrap=True, markup=False)
    else:
        caught.append(text)


@contextmanager
def notes_caught() -> Iterator[list[str]]:
    """While active, notes go to the list: of a process whose screen nobody sees."""
    notes: list[str] = []
    token = _caught.set(notes)
    try:
        yield notes
    finally:
        _caught.reset(token)


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Show `label` advancing to total: yields a function to call with each number of items done."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(label, total=total)
            yield lambda count: bar.advance(task, count)
        return

    start = last = time.monotonic()
    done = 0

    def line() -> None:
        seconds = time.monotonic() - start
        rate = done / seconds if seconds else 0.0
        left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
        text = f"{label}: {done}/{total}, {rate:.1f}/s, {seconds:.0f} s{left}"
        console.print(text, highlight=False, soft_wrap=True)

    def advance(count: int) -> None:
        nonlocal done, last
        done += count
        if time.monotonic() - last > _LINE_EVERY_S and done < total:
            last = time.monotonic()
            line()

    yield advance
    line()
