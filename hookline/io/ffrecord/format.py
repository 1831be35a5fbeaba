"""The header of an FFRecord file: reading it with suspicion, writing it byte for byte as the original does.

All numbers are little-endian, without padding. n is the number of samples.

====================  =======  ==================================================================
offset                type     meaning
====================  =======  ==================================================================
0                     u32      checksum M of the bytes 4 .. 12 + 12n; 0 in files of old versions
4                     i64      n
12                    u32[n]   checksum of each sample
12 + 4n               i64[n]   offset of each sample in the file; it ends where the next one begins
12 + 12n              bytes    the samples, one directly after another, up to the end of the file
====================  =======  ==================================================================
"""

import logging
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hookline.io.ffrecord.checksums import crc32
from hookline.io.ffrecord.errors import ChecksumError, FFRecordError

__all__ = ["FIXED", "SUFFIX", "Header", "check_suffix", "encode_header", "header_size", "list_parts", "read_header"]

SUFFIX = ".ffr"
FIXED = 12  # bytes before the tables

_START = struct.Struct("<Iq")
_logger = logging.getLogger(__name__)


class Header(NamedTuple):
    """Where the samples are: ``checksums`` uint32 (n,), ``offsets`` int64 (n + 1,), the last one the file's size."""

    checksums: NDArray[np.uint32]
    offsets: NDArray[np.int64]


def header_size(n: int) -> int:
    """Return the bytes that the header of n samples takes."""
    return FIXED + 12 * n


def check_suffix(path: str | os.PathLike[str]) -> str:
    """Return the path as a string.

    Raises:
        TypeError: if it is no path.
        ValueError: if it does not end in ``.ffr``, which the format asks for.
    """
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"{name!r}: the name of an FFRecord file must be a str or a path, not {type(name).__name__}")
    if not name.endswith(SUFFIX):
        raise ValueError(f"{name}: the name of an FFRecord file ends in {SUFFIX}; did you mean {name + SUFFIX!r}?")
    return name


def list_parts(fnames: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the files that make up one index space.

    Args:
        fnames: a file, several in their order, or a folder: its ``*.ffr`` in the order of their names.

    Raises:
        FFRecordError: if a folder holds none.
        TypeError: if it is neither a path nor a list of paths.
        ValueError: if the list is empty or a name does not end in ``.ffr``.
    """
    if isinstance(fnames, (list, tuple)):
        if not fnames:
            raise ValueError("the list of FFRecord files is empty")
        return [check_suffix(name) for name in fnames]
    if not isinstance(fnames, (str, os.PathLike)):
        raise TypeError(f"FFRecord files are a path or a list of paths, not {type(fnames).__name__}")
    if not os.path.isdir(fnames):
        return [check_suffix(fnames)]
    found = sorted(str(path) for path in Path(fnames).iterdir() if path.name.endswith(SUFFIX) and path.is_file())
    if not found:
        raise FFRecordError(f"{os.fspath(fnames)}: this folder holds no {SUFFIX} files")
    return found


def encode_header(checksums: NDArray[np.uint32], offsets: NDArray[np.int64]) -> bytes:
    """Return the header's bytes.

    Args:
        checksums: (n,).
        offsets: (n,), without the end.
    """
    tables = struct.pack("<q", len(checksums)) + checksums.astype("<u4").tobytes() + offsets.astype("<i8").tobytes()
    return struct.pack("<I", crc32(tables)) + tables


def read_header(descriptor: int, size: int, name: str, check: bool = True) -> Header:
    """Read and check a header.

    Args:
        descriptor: the open file.
        size: of the file, in bytes.
        name: of the file, for messages.
        check: whether the header's checksum must fit. That the offsets lie in the file and in order is always checked.

    Raises:
        ChecksumError: if the checksum does not fit.
        FFRecordError: if it is no header; names the byte.
    """
    n, expected = _read_start(descriptor, size, name)
    end = header_size(n)
    tables = _read_exactly(descriptor, 4, end, name)
    if check and expected == 0:
        _logger.warning("%s: written by an old version: its header has no checksum and is taken on trust", name)
    elif check and crc32(tables) != expected:
        found = f"{crc32(tables):#010x}, recorded is {expected:#010x}"
        raise ChecksumError(f"{name}: the header (bytes 4 to {end}) is damaged: its checksum is {found}")
    checksums = np.frombuffer(tables, "<u4", n, offset=8).astype(np.uint32)
    offsets = np.append(np.frombuffer(tables, "<i8", n, offset=8 + 4 * n).astype(np.int64), np.int64(size))
    _check_offsets(offsets, end, name)
    return Header(checksums, offsets)


def _read_start(descriptor: int, size: int, name: str) -> tuple[int, int]:
    """Return the number of samples and the header's checksum.

    Raises:
        FFRecordError: if the file cannot have a header of that many samples.
    """
    if size < FIXED:
        raise FFRecordError(f"{name}: ends at byte {size}, inside of the first {FIXED} bytes: no FFRecord file")
    checksum, n = _START.unpack(_read_exactly(descriptor, 0, FIXED, name))
    if checksum == 0 and n == 0:
        raise FFRecordError(f"{name}: the header (bytes 0 to {FIXED}) is all zero: its writer was killed half way")
    if n < 0 or header_size(n) > size:
        raise FFRecordError(
            f"{name}: byte 4 says {n} samples, whose header ends at byte {header_size(max(n, 0))}, "
            f"but the file ends at byte {size}: it was cut, or is no FFRecord file"
        )
    if n == 0 and size > FIXED:
        raise FFRecordError(f"{name}: there are no samples, but {size - FIXED} bytes from byte {FIXED} on")
    return n, checksum


def _check_offsets(offsets: NDArray[np.int64], begin: int, name: str) -> None:
    """Refuse samples outside of the file, in the header or of negative length.

    Raises:
        FFRecordError: naming the entry of the table, by number and by byte.
    """
    n, size = len(offsets) - 1, int(offsets[-1])
    if n == 0:
        return
    table = FIXED + 4 * n
    if offsets[0] < begin:
        raise FFRecordError(f"{name}: byte {table}: sample 0 begins at {offsets[0]}, in the header, ending at {begin}")
    beyond = np.flatnonzero(offsets > size)
    if len(beyond):
        i = int(beyond[0])
        raise FFRecordError(
            f"{name}: byte {table + 8 * i}: sample {i} begins at {offsets[i]}, but the file ends at byte {size}: "
            "it was cut, or its header is damaged"
        )
    # compared, not subtracted: differences of hostile numbers overflow
    backwards = np.flatnonzero(offsets[1:] < offsets[:-1])
    if len(backwards):
        i = int(backwards[0]) + 1
        raise FFRecordError(
            f"{name}: byte {table + 8 * i}: sample {i} begins at {offsets[i]}, "
            f"before sample {i - 1}, which begins at {offsets[i - 1]}"
        )


def _read_exactly(descriptor: int, begin: int, end: int, name: str) -> bytes:
    pieces = []
    while begin < end:
        piece = os.pread(descriptor, min(end - begin, 1 << 30), begin)
        if not piece:
            raise FFRecordError(f"{name}: ends at byte {begin}, inside of its header, which ends at byte {end}")
        pieces.append(piece)
        begin += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
