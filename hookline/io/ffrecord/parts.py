"""Several files as one index space: the folder of ``PART_00000.ffr``, ``PART_00001.ffr``, ..."""

import contextlib
import logging
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hookline.io.ffrecord.writer import FileWriter

__all__ = ["dump", "new_folder", "open_parts"]

_logger = logging.getLogger(__name__)


class PartsWriter:
    """Write samples to one file after another; used by :func:`open_parts`."""

    def __init__(self, folder: Path, n: int, per_part: int) -> None:
        self._folder, self._n, self._per_part = folder, n, per_part
        self._writer: FileWriter | None = None
        self.count = 0

    def write_one(self, buf: Any) -> None:
        """Append a sample; see :meth:`FileWriter.write_one`."""
        self._next().write_one(buf)
        self.count += 1

    def write_file(self, path: str | os.PathLike[str]) -> int:
        """Append the content of a file; see :meth:`FileWriter.write_file`."""
        length = self._next().write_file(path)
        self.count += 1
        return length

    def close(self) -> None:
        """Finish the last file."""
        if self._writer is not None:
            self._writer.close()

    def abort(self) -> None:
        """Give up the file that is being written."""
        if self._writer is not None:
            self._writer.abort()

    def _next(self) -> FileWriter:
        if self._writer is None or self._writer.count == self._writer.n:
            self.close()
            name = self._folder / f"PART_{self.count // self._per_part:05d}.ffr"
            self._writer = FileWriter(name, min(self._per_part, self._n - self.count))
        return self._writer


@contextlib.contextmanager
def open_parts(target: str | os.PathLike[str], n: int, num_parts: int = 1) -> Iterator[FileWriter | PartsWriter]:
    """Open a file, or a folder of parts, that appears when all samples are written.

    Args:
        target: the ``.ffr`` file, or the folder if there are several parts.
        n: number of samples.
        num_parts: how many files; fewer if a part would have no samples. Each has ceil(n / num_parts) samples.

    Raises:
        FileExistsError: if the folder exists.
        ValueError: if ``num_parts`` is not positive.
    """
    if num_parts < 1:
        raise ValueError(f"{num_parts} parts: expected at least 1")
    if num_parts == 1:
        with FileWriter(target, n) as writer:
            yield writer
        return
    per_part = -(-n // num_parts) or 1
    if -(-n // per_part) < num_parts:
        _logger.warning("%s: %d samples give %d parts, not %d", target, n, -(-n // per_part), num_parts)
    with new_folder(target) as folder:
        parts = PartsWriter(folder, n, per_part)
        try:
            yield parts
            parts.close()
        except BaseException:
            parts.abort()
            raise


@contextlib.contextmanager
def new_folder(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a folder that appears under its name when the block ends well, or not at all.

    Args:
        target: a name that is free, or an empty folder.

    Yields:
        The folder to write to, beside the target.

    Raises:
        FileExistsError: if there is something already.
    """
    path = Path(os.path.abspath(target))
    if path.is_symlink() or (path.exists() and not (path.is_dir() and not any(path.iterdir()))):
        raise FileExistsError(f"{target}: exists already; choose another name or remove it")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        os.replace(temporary, path)  # an empty folder is replaced; one that was filled meanwhile is an error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def dump(dataset: Any, fname: str | os.PathLike[str], nfiles: int, verbose: bool = False) -> None:
    """Write the samples of a data set to one file, or to a folder of parts.

    Args:
        dataset: has a length and gives buffers by index.
        fname: the ``.ffr`` file, or the folder if ``nfiles`` is more than 1.
        nfiles: how many files.
        verbose: whether to show a progress bar.
    """
    from tqdm import tqdm

    with open_parts(fname, len(dataset), nfiles) as writer:
        for i in tqdm(range(len(dataset)), desc=os.path.basename(fname), unit="sample", disable=not verbose):
            writer.write_one(dataset[i])
