"""Shows how far a job is: a tqdm bar where tqdm is installed, else a line each time something changes."""
from __future__ import annotations

import sys
from collections.abc import Callable

from lwq.types import Progress

Listener = Callable[[Progress], None]


def listener(progress: bool | Listener) -> Listener | None:
    """What `progress=` of the client's methods means."""
    if progress is False:
        return None
    if progress is not True:
        return progress
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return _Lines()
    return _Bar(tqdm(total=100, unit="%", bar_format="{l_bar}{bar}| {elapsed} {postfix}"))


class _Lines:
    def __init__(self) -> None:
        self._last = ""

    def __call__(self, progress: Progress) -> None:
        line = f"{progress.fraction:4.0%}  {progress.tasks_done}/{progress.tasks_total} tasks  {progress.current}"
        if line != self._last:
            print(line, file=sys.stderr, flush=True)
        self._last = line


class _Bar:
    def __init__(self, bar) -> None:
        self._bar = bar

    def __call__(self, progress: Progress) -> None:
        self._bar.n = round(100 * progress.fraction)
        self._bar.set_postfix_str(progress.current)
        if progress.fraction >= 1:
            self._bar.close()
