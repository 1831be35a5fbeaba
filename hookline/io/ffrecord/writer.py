"""Writing samples, into one file or into the parts of a folder."""

import contextlib
import operator
import os
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import IO, Any

import numpy as np
from typing_extensions import Self

from hookline.io.atomic import atomic_open
from hookline.io.ffrecord.checksums import crc32
from hookline.io.ffrecord.errors import FFRecordError
from hookline.io.ffrecord.format import check_suffix, encode_header, header_size

__all__ = ["FileWriter", "as_bytes"]

_PIECE = 4 << 20  # bytes of a file that are in memory at once


class FileWriter:
    """Write samples; the file appears under its name when all of them are on the disk, or not at all.

    Args:
        fname: the file, whose name ends in ``.ffr``. An older one is replaced at the end.
        n: how many samples will be written.

    Attributes:
        n: as given.
        count: how many were written.

    Raises:
        ValueError: if the name does not end in ``.ffr`` or ``n`` is negative.
    """

    def __init__(self, fname: str | os.PathLike[str], n: int) -> None:
        self._open: contextlib.ExitStack | None = None
        self.fname, self.n, self.count = check_suffix(fname), operator.index(n), 0
        if self.n < 0:
            raise ValueError(f"n={n}: the number of samples cannot be negative")
        self._checksums = np.zeros(self.n, dtype=np.uint32)
        self._offsets = np.zeros(self.n, dtype=np.int64)
        stack = contextlib.ExitStack()
        self._file: IO[bytes] = stack.enter_context(atomic_open(self.fname))
        self._open, self._process = stack, os.getpid()
        self._end = header_size(self.n)
        self._file.seek(self._end)

    def write_one(self, buf: Any) -> None:
        """Append a sample.

        Args:
            buf: anything that has memory: bytes, arrays of any type and layout, memoryviews. It is stored whole, an
                array in C order.

        Raises:
            FFRecordError: if all samples are written already, or the writer is closed.
            TypeError: if it has no memory.
        """
        self._append(iter((as_bytes(buf),)))

    def write_file(self, path: str | os.PathLike[str]) -> int:
        """Append the content of a file, of any size, without loading it whole.

        Returns:
            Its length in bytes.

        Raises:
            FFRecordError: if all samples are written already, or the writer is closed.
            OSError: if it cannot be opened; or cannot be read to its end, and then the writer gives up.
        """
        before = self._end
        with open(path, "rb", buffering=0) as source:
            self._append(_pieces(source))
        return self._end - before

    def close(self) -> None:
        """Write the header and put the file under its name. Calling it again does nothing.

        Raises:
            FFRecordError: if samples are missing: then there is no file, and an older one stays.
        """
        if self._open is None:
            return
        if self.count != self.n:
            self.abort()
            raise FFRecordError(f"{self.fname}: not written: {self.count} of {self.n} samples were given")
        try:
            self._file.seek(0)
            self._file.write(encode_header(self._checksums, self._offsets))
        except BaseException:
            self.abort()
            raise
        stack, self._open = self._open, None
        stack.close()

    def abort(self) -> None:
        """Give up: nothing appears, and an older file of that name stays."""
        stack, self._open = self._open, None
        if stack is not None:
            reason = _Abandoned()
            with contextlib.suppress(_Abandoned):
                stack.__exit__(_Abandoned, reason, None)

    def _append(self, pieces: Iterator[Any]) -> None:
        if self._open is None:
            raise FFRecordError(f"{self.fname}: this writer is closed")
        if self.count == self.n:
            raise FFRecordError(f"{self.fname}: all {self.n} samples are written already")
        checksum, end = 0, self._end
        try:
            for piece in pieces:
                self._file.write(piece)
                checksum, end = crc32(piece, checksum), end + len(piece)
        except BaseException:  # what is in the file by now is unknown
            self.abort()
            raise
        self._checksums[self.count], self._offsets[self.count] = checksum, self._end
        self._end = end
        self.count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        if self._open is None or self._process != os.getpid():
            return
        if self.count == self.n:
            self.close()  # as the original does
        else:
            self.abort()
            message = f"{self.fname}: not written: the writer was dropped after {self.count} of {self.n} samples"
            warnings.warn(message, ResourceWarning, stacklevel=2, source=self)


class _Abandoned(Exception):
    """Ends the block of ``atomic_open`` without a file."""


def as_bytes(buf: Any) -> memoryview:
    """Return the memory of an object as one row of bytes; copied only if it is not in one piece.

    Args:
        buf: anything with the buffer protocol.

    Raises:
        TypeError: if it has no memory, such as ``str``.
    """
    try:
        view = memoryview(buf)
    except TypeError:
        hint = "; encode it first" if isinstance(buf, str) else ""
        raise TypeError(f"a sample must be bytes or an array, not {type(buf).__name__}{hint}") from None
    if view.format == "B" and view.ndim == 1 and view.contiguous:
        return view
    if view.nbytes == 0:
        return memoryview(b"")
    try:
        return view.cast("B")
    except TypeError:  # strided, or of a structured type
        return memoryview(view.tobytes())


def _pieces(source: Any) -> Iterator[memoryview]:
    memory = memoryview(bytearray(_PIECE))
    while count := source.readinto(memory):
        yield memory[:count]
