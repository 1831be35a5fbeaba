"""Which folders come out of which packs, the packs that are open, and the cache of extracted files."""

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from iopath.common.file_io import file_lock

from hookline.io.atomic import atomic_open
from hookline.io.paths import cache_folder

if TYPE_CHECKING:
    from hookline.io.ffrecord.packed import PackedFolder

__all__ = ["VARIABLE", "Mount", "Place", "cache_of", "extract", "mounted", "open_pack", "parse_mounts"]

VARIABLE = "HOOKLINE_FFRECORD"

_CHECK = "?check="
_CHECKS: dict[str, bool | str] = {"always": True, "once": "once", "off": False}


class Mount(NamedTuple):
    """A folder whose content comes out of a pack: as the user writes it and in full, and the pack's full path."""

    point: str
    full: str
    pack: str
    check_data: bool | str

    def inner(self, path: str) -> str | None:
        """Return the path inside of the pack, or None if the path lies elsewhere."""
        for point in (self.point, self.full):
            if path == point or path.startswith(point.rstrip("/") + "/"):
                return path[len(point) :].lstrip("/")
        return None

    def __str__(self) -> str:
        check = next(name for name, value in _CHECKS.items() if value == self.check_data)
        return f"{self.point}={self.pack}" + (f"{_CHECK}{check}" if check != "always" else "")


class Place(NamedTuple):
    """A file or folder inside of an open pack."""

    pack: "PackedFolder"
    inner: str


def parse_mounts(text: str) -> list[Mount]:
    """Read the value of ``$HOOKLINE_FFRECORD``.

    Raises:
        ValueError: if it is none; says what one looks like.
    """
    mounts = []
    for entry in filter(None, text.split(os.pathsep)):
        point, equals, pack = entry.partition("=")
        pack, _, check = pack.partition(_CHECK)
        if not (point and equals and pack) or (check and check not in _CHECKS):
            checks = " or ".join(_CHECKS)
            raise ValueError(
                f"${VARIABLE}: {entry!r} is not FOLDER=PACK.ffr, with {_CHECK}{checks} behind it if wanted"
            )
        check_data = _CHECKS[check or "always"]
        mounts.append(Mount(os.path.normpath(point), os.path.abspath(point), os.path.abspath(pack), check_data))
    return mounts


def mounted(mounts: list[Mount], path: str) -> Iterator[Place]:
    """Go through the packs that stand for a folder above a path."""
    for mount in mounts:
        inner = mount.inner(path)
        if inner is not None:
            yield Place(open_pack(mount.pack, mount.check_data), inner)


@functools.lru_cache(maxsize=256)
def open_pack(file: str, check_data: bool | str) -> "PackedFolder":
    """Open each pack once in a process; a forked one goes on with what is open."""
    from hookline.io.ffrecord.packed import PackedFolder

    return PackedFolder(file, check_data)


def cache_of(pack: "PackedFolder") -> Path:
    """Return where files of a pack are extracted to; equal packs share it, changed ones do not."""
    return cache_folder() / "ffrecord" / _digest(pack)


@functools.lru_cache(maxsize=256)
def _digest(pack: "PackedFolder") -> str:
    digest = hashlib.sha256()
    for part in range(len(pack.reader.fnames)):
        digest.update(pack.reader.get_checksums(part).tobytes() + pack.reader.get_offsets(part).tobytes())
    return digest.hexdigest()[:32]


def extract(place: Place, local: Path, force: bool) -> None:
    """Write a packed file below the pack's cache folder, unless it is there; of many processes the first one does it.

    Args:
        place: the file.
        local: where to.
        force: whether to write it again.
    """
    if local.is_file() and not force:
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    # the lock lies beside the cache folder of the pack, so that extracted folders hold what the pack holds
    with file_lock(str(cache_of(place.pack))), contextlib.ExitStack() as stack:
        if force or not local.is_file():
            stack.enter_context(atomic_open(local)).write(place.pack.read_one(place.inner))
