"""Reading samples by number, from one file or several."""

import operator
import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from hookline.io.ffrecord.errors import FFRecordError
from hookline.io.ffrecord.format import list_parts
from hookline.io.ffrecord.part import ONCE, Bytes, Part

__all__ = ["FileReader", "Files"]

Files = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class FileReader:
    """Read samples by number.

    Any number of readers may be open. One reader may be used by many threads at once, which run while it reads and
    checks, and by processes forked before or after it has read; sent to a spawned process, it opens its files there.

    Samples are copied from a memory map where the file lies on a local file system, else read by system calls: over a
    network, an error while reading a mapped page would end the process. Replace a file that is in use by renaming, as
    :class:`FileWriter` does; one that is overwritten or cut in place gives errors, or damaged samples.

    Args:
        fname: a file, a list of files, or a folder, which means its ``*.ffr`` in the order of their names. The samples
            of one file follow those of the file before.
        check_data: whether checksums are verified: ``True`` always, ``"once"`` for each sample the first time that this
            process reads it, ``False`` never.
        mapped: whether to read through memory maps; by default the file system decides.

    Attributes:
        n: number of samples in all files.
        fnames: the files.
        check_data: as given.

    Raises:
        FFRecordError: if a file is no FFRecord file, is damaged, or was left by a killed writer.
        ValueError: if a name does not end in ``.ffr``, or ``check_data`` is none of the three.
    """

    def __init__(self, fname: Files, check_data: bool | str = True, *, mapped: bool | None = None) -> None:
        if check_data not in (True, False, ONCE):
            raise ValueError(f"check_data={check_data!r}: expected True, False or {ONCE!r}")
        self.check_data, self.fnames = check_data, list_parts(fname)
        self._mapped = mapped
        self._parts: list[Part] | None = [Part(name, check_data, mapped) for name in self.fnames]
        self._starts = np.cumsum([0, *(part.n for part in self._parts)]).tolist()
        self.n: int = self._starts[-1]

    def read_one(self, index: int) -> Bytes:
        """Return one sample.

        Args:
            index: 0 <= index < n.

        Returns:
            uint8 (length,), writable, in memory of its own: it outlives the reader.

        Raises:
            ChecksumError: if the sample is damaged.
            FFRecordError: if the reader is closed or the file was cut meanwhile.
            IndexError: if there is no such sample; negative numbers do not count from the end.
        """
        part, i = self._locate(index)
        return part.read(i)

    def read_bytes(self, index: int) -> bytes:
        """Return one sample as ``bytes``; otherwise as :meth:`read_one`.

        Args:
            index: 0 <= index < n.
        """
        part, i = self._locate(index)
        return part.read_bytes(i)

    def read(self, indices: Sequence[int] | NDArray[np.integer]) -> list[Bytes]:
        """Return many samples; what is not in memory yet is fetched from the disk at the same time.

        Args:
            indices: any numbers in any order, also repeatedly; as many as you like.

        Returns:
            One array for each, in the order asked for.

        Raises:
            ChecksumError: if a sample is damaged.
            FFRecordError: if the reader is closed or a file was cut meanwhile.
            IndexError: if there is no such sample.
        """
        numbers = [operator.index(index) for index in indices]
        order = sorted(range(len(numbers)), key=numbers.__getitem__)  # also the order on the disk
        places = [self._locate(numbers[k]) for k in order]
        for part, group in groupby(places, key=itemgetter(0)):
            part.expect([i for _, i in group])
        found: list[Any] = [None] * len(numbers)
        for k, (part, i) in zip(order, places, strict=True):
            found[k] = part.read(i)
        return found

    def validate(self) -> None:
        """Read the headers again and check them; for samples, read each.

        Raises:
            FFRecordError: if one is damaged by now.
        """
        for part in self._open_parts():
            part.validate()

    def get_offsets(self, part: int) -> NDArray[np.int64]:
        """Return where the samples of a file begin: int64 (n + 1,), the last one the file's size."""
        return self._part(part).header.offsets.copy()

    def get_checksums(self, part: int) -> NDArray[np.uint32]:
        """Return the recorded checksums of a file's samples: uint32 (n,)."""
        return self._part(part).header.checksums.copy()

    def length(self, index: int) -> int:
        """Return the length of a sample in bytes."""
        part, i = self._locate(index)
        return part.length(i)

    def locate(self, index: int) -> tuple[str, int]:
        """Return the file of a sample and its number there."""
        part, i = self._locate(index)
        return part.name, i

    def close(self) -> None:
        """Close the files; what other threads are reading still comes to its end. Calling it twice is allowed."""
        self._parts = None

    def __len__(self) -> int:
        return self.n

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self.fnames, self.check_data, self._mapped)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.fnames}, check_data={self.check_data!r}): {self.n} samples"

    def _open_parts(self) -> list[Part]:
        parts = self._parts
        if parts is None:
            raise FFRecordError(f"{self.fnames[0]}: this reader is closed")
        return parts

    def _part(self, number: int) -> Part:
        parts = self._open_parts()
        if not 0 <= number < len(parts):
            raise IndexError(f"there is no file {number}: this reader has {len(parts)}, from 0 on")
        return parts[number]

    def _locate(self, index: int) -> tuple[Part, int]:
        """Return the file of a sample and its number there.

        Raises:
            FFRecordError: if the reader is closed.
            IndexError: if there is no such sample.
        """
        parts, i = self._parts or self._open_parts(), operator.index(index)
        if not 0 <= i < self.n:
            raise IndexError(f"{self.fnames[0]}: there is no sample {i}: expected 0 <= index < {self.n}")
        if len(parts) == 1:
            return parts[0], i
        number = bisect_right(self._starts, i) - 1
        return parts[number], i - self._starts[number]


def _reopen(kind: type[FileReader], fnames: list[str], check_data: bool | str, mapped: bool | None) -> FileReader:
    return kind(fnames, check_data, mapped=mapped)
