"""Shows how far a job is: a bar of tqdm or rich where one of them is installed, else a line each time something changes."""
from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from lwq.types import Progress

Listener = Callable[[Progress], object]


@contextlib.contextmanager
def shown(progress: bool | Listener) -> Iterator[Listener | None]:
    """What `progress=` of the client's methods means, while the block runs."""
    if not isinstance(progress, bool):
        yield progress
    elif not progress:
        yield None
    else:
        show, close = _tqdm_bar() or _rich_bar() or _lines()
        try:
            yield show
        finally:
            close()


def remaining(progress: Progress) -> str:
    """"3m20s", or nothing where nobody can say."""
    if not progress.HasField("remaining_seconds") or progress.fraction >= 1:
        return ""
    seconds = max(0, round(progress.remaining_seconds))
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds % 60:02}s" if minutes else f"{seconds}s"


def _words(progress: Progress) -> str:
    left = remaining(progress)
    return f"{progress.current}, {left} left" if left else progress.current


def _tqdm_bar() -> tuple[Listener, Callable[[], object]] | None:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    bar: Any = tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed} {postfix}")

    def show(progress: Progress) -> None:
        bar.n = round(100 * progress.fraction)
        bar.set_postfix_str(_words(progress))

    return show, bar.close


def _rich_bar() -> tuple[Listener, Callable[[], object]] | None:
    try:
        from rich.progress import BarColumn, Progress as Bar, TaskProgressColumn, TextColumn, TimeElapsedColumn
    except ImportError:
        return None
    bar = Bar(BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    task = bar.add_task("", total=1.0)
    bar.start()
    return lambda progress: bar.update(task, completed=progress.fraction, description=_words(progress)), bar.stop


def _lines() -> tuple[Listener, Callable[[], object]]:
    last = ""

    def show(progress: Progress) -> None:
        nonlocal last
        line = f"{progress.fraction:4.0%}  {progress.tasks_done}/{progress.tasks_total} tasks  {progress.current}"
        if line != last:
            print(line, file=sys.stderr, flush=True)
        last = line

    return show, lambda: None
