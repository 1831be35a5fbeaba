"""How the bytes of an open file are best copied into memory."""

import mmap
import os
import sys
from functools import cache

import numpy as np

__all__ = ["is_local", "keep_freed_memory", "map_file"]

# File systems whose pages cannot vanish under a mapping because a server does not answer.
_LOCAL = {"btrfs", "erofs", "ext2", "ext3", "ext4", "f2fs", "overlay", "ramfs", "squashfs", "tmpfs", "xfs", "zfs"}
_KEPT = 32 << 20  # bytes; the largest block from which the C library learns


def is_local(descriptor: int) -> bool:
    """Say whether a file lies on a local file system, as far as the system tells; unknown ones count as remote."""
    device = os.fstat(descriptor).st_dev
    return _mounted().get(f"{os.major(device)}:{os.minor(device)}") in _LOCAL


def map_file(descriptor: int, size: int) -> np.ndarray | None:
    """Map a whole file for reading, or return None where the system does not do it.

    Returns:
        uint8 (size,), read-only.
    """
    try:
        return np.frombuffer(mmap.mmap(descriptor, size, prot=mmap.PROT_READ), dtype=np.uint8)
    except (OSError, ValueError):
        return None


@cache
def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next record, instead of giving it back to the system each time.

    By default glibc returns memory at the end of its heap as soon as 128 KiB are free, and gets it back page by page,
    each zeroed: a batch of 64 records of 100 KB is then read several times as slowly. It raises that limit to twice the
    size of the largest block it ever freed; the one freed here was never touched, so it costs nothing.
    """
    if sys.platform == "linux":
        np.empty(_KEPT - (64 << 10), dtype=np.uint8)


@cache
def _mounted() -> dict[str, str]:
    """Return the type of the file system of each "major:minor" device; of the form, see proc(5), mountinfo."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
            lines = [line.split() for line in file]
    except OSError:
        return {}
    return {line[2]: line[line.index("-") + 1] for line in lines if "-" in line[:-1]}
