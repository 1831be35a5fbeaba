"""Reading annotation files: JSON with errors that name the file and the place in it."""

import contextlib
import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hookline.data.datasets.paths import require_file
from hookline.io import PathManager


class AnnotationFileError(ValueError):
    """An annotation file is not what it should be; the message names the file and what in it is wrong."""


def read_json(path: str | Path, what: str = "annotations") -> Any:
    """Read a JSON file, big ones too.

    Args:
        path: a local path or an address that the path manager knows.
        what: what the file is, for messages; also for the FileNotFoundError if it is not there.

    Raises:
        AnnotationFileError: if it is not JSON; names the file, line and column.
    """
    with PathManager.open(require_file(path, what), "rb") as file:
        content = file.read()
    try:
        with paused_gc():
            return json.loads(content)
    except UnicodeDecodeError as error:
        raise AnnotationFileError(f"{path}: not UTF-8 text (byte {error.start}): {error.reason}") from None
    except json.JSONDecodeError as error:
        cut = " (the file ends here: is it complete?)" if error.pos >= len(error.doc.rstrip()) else ""
        place = f"line {error.lineno} column {error.colno}"
        raise AnnotationFileError(f"{path}: not valid JSON, {place}: {error.msg}{cut}") from None


@contextlib.contextmanager
def paused_gc() -> Iterator[None]:
    """Keep the cyclic collector from scanning again and again while millions of plain values are made."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
