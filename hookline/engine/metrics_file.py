"""The file of JSON lines that a run leaves, as a journal: cut where a resumed run begins, and read."""

from __future__ import annotations

import json
import os
from typing import Any

__all__ = ["cut_lines", "read_rows"]


def cut_lines(path: str, from_iteration: int | None) -> tuple[int, set[str]]:
    """Truncate a file of JSON lines at ``from_iteration`` of its last run, and at a last line without an end.

    Args:
        path: the file; it exists.
        from_iteration: the first iteration that will come again, None if none will.

    Returns:
        The iteration of the last line left, -1 without any, and the names written for it.
    """
    end, last, names = 0, -1, set[str]()
    cut: tuple[int, int, set[str]] | None = None
    with open(path, "r+b") as file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            entry = _parse(line)
            iteration = entry.get("iteration", last)
            if iteration < last:  # another run began here, in the same file
                cut = None
            if from_iteration is not None and iteration >= from_iteration and cut is None:
                cut = (end, last, names)
            names = set(entry) | (names if iteration == last else set())
            end, last = end + len(line), iteration
        if cut is not None:
            end, last, names = cut
        if end < os.path.getsize(path):
            file.truncate(end)
    return last, names


def read_rows(path: str, before: int) -> dict[int, dict[str, float]]:
    """Read what the last run in a file of JSON lines measured.

    Args:
        path: the file; without one there are no rows.
        before: later iterations, and this one, are left out.

    Returns:
        Values by name, by iteration in rising order.
    """
    rows: dict[int, dict[str, float]] = {}
    last = -1
    if not os.path.isfile(path):
        return rows
    with open(path, "rb") as file:
        for line in file:
            entry = _parse(line)
            iteration = entry.pop("iteration", None)
            if iteration is None or not line.endswith(b"\n"):
                continue
            if iteration < last:
                rows.clear()
            last = iteration
            if iteration < before:
                rows.setdefault(iteration, {}).update(entry)
    return rows


def _parse(line: bytes) -> dict[str, Any]:
    """Read the metrics of a line; one of another kind has none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) and isinstance(entry.get("iteration"), int) else {}
