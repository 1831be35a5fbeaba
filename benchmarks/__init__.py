"""Measurements beside named peers: each module has a ``main()`` that prints its tables (``python -m benchmarks``)."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

__all__ = ["Timing", "measure", "print_table"]


class Timing(NamedTuple):
    """Seconds of one call: the best of all calls (least disturbed by others on the machine) and the median."""

    best: float
    median: float
    calls: int


def measure(
    function: Callable[[], Any],
    min_time_s: float = 1.0,
    *,
    warmup: int = 1,
    min_calls: int = 3,
    max_calls: int = 100_000,
) -> Timing:
    """Time calls of ``function`` until they took ``min_time_s`` together.

    The garbage collector is off between the clock's readings, as in :mod:`timeit`.

    Args:
        function: called without arguments; its result is dropped.
        min_time_s: total seconds of timed calls to collect.
        warmup: calls before the clock starts (caches, lazy set-up).
        min_calls: at least that many timed calls, however long they take.
        max_calls: at most that many.
    """
    for _ in range(warmup):
        function()
    seconds: list[float] = []
    total = 0.0
    collecting = gc.isenabled()
    gc.disable()
    try:
        while len(seconds) < max_calls and (total < min_time_s or len(seconds) < min_calls):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
            total += seconds[-1]
    finally:
        if collecting:
            gc.enable()
    return Timing(min(seconds), statistics.median(seconds), len(seconds))


def print_table(rows: Sequence[Sequence[Any]], headers: Sequence[str], title: str = "") -> None:
    """Print ``rows`` as a Markdown table, so that the output can be pasted into a document as it is.

    Args:
        rows: cells of any type; floats are shown with four significant digits.
        headers: one name per column.
        title: printed in bold above the table.
    """
    cells = [list(map(str, headers)), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(headers))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    if title:
        print(f"\n**{title}**\n")
    print("\n".join(lines), flush=True)


def _text(cell: Any) -> str:
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
