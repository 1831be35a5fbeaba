"""One open file: its header, and its samples by number."""

import os
import stat
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hookline.io.ffrecord.checksums import crc32
from hookline.io.ffrecord.errors import ChecksumError, FFRecordError
from hookline.io.ffrecord.format import read_header
from hookline.io.ffrecord.storage import is_local, keep_freed_memory, map_file

__all__ = ["ALWAYS", "ONCE", "Part"]

ALWAYS, ONCE = True, "once"
MAPPED_FROM = 8 << 10  # bytes; below, one system call is faster than looking up pages
PROBED = 4  # samples of a batch, to learn whether the batch is in memory
SEARCHED = 64 << 10  # bytes appended to a file that are looked for when its last sample is not what was written

Bytes = NDArray[np.uint8]
_PROBE = bytearray(1)  # written by every probe, read by nobody


class Part:
    """One file of an index space, open for reading.

    It may be read by any number of threads and by forked processes: there is no position, and no state that matters.
    The file is closed when nobody reads it any more, so that a read in another thread never meets a closed descriptor.

    Args:
        name: of the file.
        check: ``True``, ``"once"`` or ``False``.
        mapped: whether samples are copied from a memory map; ``None`` lets the file system decide.

    Raises:
        FFRecordError: if it is no FFRecord file.
    """

    def __init__(self, name: str, check: bool | str, mapped: bool | None = None) -> None:
        self.name, self.check = name, check
        self._descriptor = -1
        if not stat.S_ISREG(os.stat(name).st_mode):
            raise FFRecordError(f"{name}: is no regular file")
        self._descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self.size = os.fstat(self._descriptor).st_size
        self.header = read_header(self._descriptor, self.size, name, bool(check))
        self.n = len(self.header.checksums)
        # single elements of a memoryview are Python numbers, and three times as fast to take as those of an array
        self._offsets, self._checksums = self.header.offsets.data, self.header.checksums.data
        self._checked = bytearray(self.n) if check == ONCE else None
        wanted = is_local(self._descriptor) if mapped is None else mapped
        self._map = map_file(self._descriptor, self.size) if wanted else None
        keep_freed_memory()

    def __del__(self, close: Callable[[int], None] = os.close) -> None:  # modules may be gone when the process ends
        if self._descriptor >= 0:
            close(self._descriptor)

    def length(self, i: int) -> int:
        """Return the length of a sample in bytes."""
        return self._offsets[i + 1] - self._offsets[i]

    def read(self, i: int) -> Bytes:
        """Return a sample in memory of its own.

        Args:
            i: 0 <= i < n.

        Raises:
            ChecksumError: if it is damaged.
            FFRecordError: if the file was cut since it was opened.
        """
        begin, end = self._offsets[i], self._offsets[i + 1]
        sample = np.empty(end - begin, dtype=np.uint8)
        if self._map is not None and end - begin >= MAPPED_FROM:
            if os.lseek(self._descriptor, 0, os.SEEK_END) < end:  # pages behind the end would end the process
                raise self._cut(i, begin)
            sample[:] = self._map[begin:end]
        elif begin < end:
            self._fill(sample, i, begin)
        if self.check and not (self._checked is not None and self._checked[i]):
            self._verify(sample, i)
        return sample

    def read_bytes(self, i: int) -> bytes:
        """Return a sample as ``bytes``; otherwise as :meth:`read`.

        Raises:
            ChecksumError: if it is damaged.
            FFRecordError: if the file was cut since it was opened.
        """
        begin, end = self._offsets[i], self._offsets[i + 1]
        sample = os.pread(self._descriptor, end - begin, begin)
        if len(sample) < end - begin:  # the system reads at most 2 GiB at once
            return self.read(i).tobytes()
        if self.check and not (self._checked is not None and self._checked[i]):
            self._verify(sample, i)
        return sample

    def validate(self) -> None:
        """Read and check the header again.

        Raises:
            FFRecordError: if it is damaged by now.
        """
        read_header(self._descriptor, os.fstat(self._descriptor).st_size, self.name)

    def expect(self, samples: list[int]) -> None:
        """Have the system fetch those samples from the disk at the same time, unless they seem to be in memory.

        Args:
            samples: numbers, in their order.
        """
        if len(samples) < 2 or not hasattr(os, "posix_fadvise"):
            return
        if all(map(self._in_memory, samples[:: -(-len(samples) // PROBED)])):  # asking for all costs as much as reading
            return
        for i in samples:
            begin, end = self._offsets[i], self._offsets[i + 1]
            os.posix_fadvise(self._descriptor, begin, end - begin, os.POSIX_FADV_WILLNEED)

    def _in_memory(self, i: int) -> bool:
        """Say whether the end of a sample can be had without waiting for the disk."""
        try:
            return os.preadv(self._descriptor, (_PROBE,), self._offsets[i + 1] - 1, getattr(os, "RWF_NOWAIT", 0)) == 1
        except BlockingIOError:
            return False
        except OSError:
            return True  # such file systems cannot tell

    def _fill(self, sample: Bytes, i: int, begin: int) -> None:
        done, view = 0, sample.data
        while done < len(view):
            count = os.preadv(self._descriptor, (view[done:],), begin + done)
            if count == 0:
                raise self._cut(i, begin)
            done += count

    def _verify(self, sample: Bytes | bytes, i: int) -> None:
        found, recorded = crc32(sample), self._checksums[i]
        if found != recorded:
            place = f"sample {i} (bytes {self._offsets[i]} to {self._offsets[i + 1]})"
            raise ChecksumError(
                f"{self.name}: {place} is damaged: its checksum is {found:#010x}, recorded is {recorded:#010x}"
                f"{self._explain(sample, recorded) if i == self.n - 1 else ''}"
            )
        if self._checked is not None:
            self._checked[i] = 1

    def _explain(self, sample: Bytes | bytes, recorded: int) -> str:
        """Look for the end of the last sample, which is that of the file and thus moves with it."""
        view = sample if isinstance(sample, bytes) else sample.data
        length = max(0, len(view) - SEARCHED)
        value = crc32(view[:length])
        while value != recorded and length < len(view):
            value = crc32(view[length : length + 1], value)
            length += 1
        if value != recorded or length == len(view):
            return "; it is the last one, so the file may also have been cut"
        return f"; the file was extended: {len(view) - length} bytes from byte {self.size - len(view) + length} on"

    def _cut(self, i: int, begin: int) -> FFRecordError:
        now = os.fstat(self._descriptor).st_size
        return FFRecordError(
            f"{self.name}: sample {i} begins at byte {begin}, but the file, {self.size} bytes long when it was opened, "
            f"now ends at byte {now}"
        )
