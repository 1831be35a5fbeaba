"""Results as text for the log."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["category_table", "metric_table", "print_csv_format"]

logger = logging.getLogger(__name__)

_COLUMNS = 3


def metric_table(metrics: Mapping[str, float]) -> str:
    """Return metrics as a table of one row."""
    from tabulate import tabulate

    return tabulate([list(metrics.values())], headers=list(metrics), tablefmt="pipe", floatfmt=".3f", numalign="center")


def category_table(metrics: Mapping[str, float]) -> str:
    """Return metrics per category as a table of three pairs of columns, read row by row.

    Args:
        metrics: percent by ``AP-name``.
    """
    from tabulate import tabulate

    cells: list[Any] = [cell for name, value in metrics.items() for cell in (name.removeprefix("AP-"), value)]
    width = 2 * min(_COLUMNS, len(metrics))
    rows = [cells[start : start + width] for start in range(0, len(cells), width)]
    return tabulate(rows, headers=["category", "AP"] * (width // 2), tablefmt="pipe", floatfmt=".3f", numalign="left")


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Log the main metrics of each task in lines that paste into a spreadsheet.

    Args:
        results: ``{task: {metric: value}}``; metrics with a dash, those of single categories, are left out. A number in
            place of a task's metrics is logged by its name.
    """
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            logger.info(f"copypaste: {task}={metrics}")
            continue
        main = {name: value for name, value in metrics.items() if "-" not in name}
        logger.info(f"copypaste: Task: {task}")
        logger.info(f"copypaste: {','.join(main)}")
        logger.info(f"copypaste: {','.join(_number(value) for value in main.values())}")


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) and not math.isnan(value) else str(value)
