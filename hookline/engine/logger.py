"""Text logs: the console shows rank 0, every rank writes its own file."""

from __future__ import annotations

import copy
import itertools
import logging
import sys
import time
from pathlib import Path

__all__ = ["close_logger", "setup_logger"]

_FORMAT = "[%(asctime)s %(shortname)s]: %(message)s"
_DATE = "%m/%d %H:%M:%S"
_COLORS = {logging.WARNING: "\033[33m", logging.ERROR: "\033[31m", logging.CRITICAL: "\033[31m"}


class _Formatter(logging.Formatter):
    """Shorten ``hookline.engine.hooks.evaluation`` to ``hookline.evaluation`` and mark warnings.

    Args:
        color: mark with colours.
        rank: this process's rank, shown if it is not 0.
        tracebacks: show those of exceptions.
    """

    def __init__(self, color: bool, rank: int, tracebacks: bool = True) -> None:
        super().__init__(_FORMAT, _DATE)
        self.color = color
        self.rank = rank
        self.tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        if not self.tracebacks and (record.exc_info or record.exc_text):
            record = copy.copy(record)
            record.exc_info = record.exc_text = None
        parts = record.name.split(".")
        short = parts[0] if len(parts) == 1 else f"{parts[0]}.{parts[-1]}"
        if self.rank:
            short += f" rank{self.rank}"
        record.__dict__["shortname"] = short
        text = super().format(record)
        if record.levelno < logging.WARNING:
            return text
        label = logging.getLevelName(record.levelno)
        if self.color:
            label = f"{_COLORS[record.levelno]}{label}\033[0m"
        return text.replace("]: ", f"]: {label} ", 1)


def setup_logger(
    output_dir: str | Path | None = None,
    rank: int = 0,
    name: str = "hookline",
    *,
    level: str | int = logging.INFO,
    fresh: bool = False,
) -> logging.Logger:
    """Set up the logger ``name``: console on rank 0, ``log.txt`` (``log.txt.rank1`` ...) on every rank.

    Calling it again replaces its own handlers, so a second run in the same process does not write into the first
    run's file.

    Args:
        output_dir: folder of the log files; none are written without it. An existing log is appended to. Tracebacks
            then go there, and the console shows the message alone.
        rank: this process's rank.
        name: the logger to set up.
        level: what is less important is left out, such as ``"WARNING"``.
        fresh: another run begins here. The log of the one before is kept under the time of its last line, such as
            ``log_20261126_150233.txt``.

    Returns:
        The logger.
    """
    close_logger(name)
    logger = logging.getLogger(name)
    logger.setLevel(level)
    logger.propagate = False
    if rank == 0:
        console = logging.StreamHandler(sys.stdout)
        console.setFormatter(_Formatter(sys.stdout.isatty(), rank, tracebacks=output_dir is None))
        logger.addHandler(console)
    if output_dir is not None:
        file = Path(output_dir) / ("log.txt" if rank == 0 else f"log.txt.rank{rank}")
        if fresh:
            _put_aside(file)
        handler = logging.FileHandler(file, encoding="utf-8")
        handler.setFormatter(_Formatter(False, rank))
        logger.addHandler(handler)
    return logger


def _put_aside(file: Path) -> None:
    """Rename the log of an earlier run after the time of its last line."""
    if not file.is_file() or file.stat().st_size == 0:
        return
    moment = time.strftime("%Y%m%d_%H%M%S", time.localtime(file.stat().st_mtime))
    for number in itertools.count(1):
        another = "" if number == 1 else f"_{number}"
        kept = file.with_name(file.name.replace("log", f"log_{moment}{another}", 1))
        if not kept.exists():
            file.rename(kept)
            return


def close_logger(name: str = "hookline") -> None:
    """Close the handlers of the logger ``name`` and leave it as it was; whoever set it up calls this at the end."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.NOTSET)
    logger.propagate = True
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
