"""Folders that are whole or absent: filled under a temporary name, then renamed.

As with single files, the temporary folder is locked while its maker lives, and so is the older one that makes room.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import shutil
from pathlib import Path

from hookline.io.atomic import is_running, sync_folder

try:
    import fcntl
except ImportError:  # not a POSIX system: there the maker's process number decides
    fcntl = None  # type: ignore[assignment]

__all__ = ["AtomicFolder", "remove_folder_leftovers"]

_LEFT = re.compile(r"^\.(?P<name>.+)\.(?P<pid>\d+)\.[0-9a-f]{8}\.(?P<kind>filling|replaced)$")
_logger = logging.getLogger(__name__)


class AtomicFolder:
    """A folder that appears under its name when everything in it is complete.

    What is put into it must have been flushed to the disk. Several processes may fill it; one of them makes and
    finishes it.

    Args:
        path: The name that it shall have; the folder above must exist.

    Attributes:
        temporary: Where it is filled.

    Raises:
        OSError: If it cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.temporary = self._beside("filling")
        self.temporary.mkdir()
        self._descriptor = _locked(self.temporary)

    def finish(self) -> None:
        """Give the folder its name; an older one of that name is replaced.

        Raises:
            OSError: If it cannot be renamed; the older one is then where it was.
        """
        older = None
        try:
            sync_folder(self.temporary)
            replaced = self._beside("replaced") if self.path.exists() else None
            if replaced is not None:  # a kill before the next rename is undone by `remove_folder_leftovers`
                older = _locked(self.path)  # not before: who starts now must leave it
                os.rename(self.path, replaced)
            try:
                os.rename(self.temporary, self.path)
            except OSError:
                if replaced is not None:
                    os.rename(replaced, self.path)
                raise
            sync_folder(self.path.parent)
            if replaced is not None:
                shutil.rmtree(replaced, ignore_errors=True)
        finally:
            self._unlock()
            if older is not None:
                os.close(older)

    def discard(self) -> None:
        """Remove what was written; an older folder of the name stays."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        self._unlock()

    def _beside(self, kind: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{os.getpid()}.{secrets.token_hex(4)}.{kind}")

    def _unlock(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def remove_folder_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed makers of an `AtomicFolder` left; an older folder that had just made room comes back.

    Folders that a living process is filling are not touched.

    Args:
        folder: A local folder; one that does not exist has no leftovers.

    Returns:
        What was removed.
    """
    if not os.path.isdir(folder):
        return []
    removed = []
    for path in sorted(Path(folder).iterdir()):
        found = _LEFT.match(path.name)
        if found is None or not path.is_dir() or _is_being_filled(path, int(found["pid"])):
            continue
        target = path.with_name(found["name"])
        try:
            if found["kind"] == "replaced" and not target.exists():
                os.rename(path, target)
                _logger.warning("%s is the older folder again: its successor was not finished", target)
                continue
            shutil.rmtree(path)
        except OSError as error:
            _logger.warning("could not remove the leftover %s: %s", path, error)
            continue
        removed.append(path)
    return removed


def _locked(folder: Path) -> int | None:
    """Lock a folder where the file system can, and return what holds the lock."""
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def _is_being_filled(path: Path, pid: int) -> bool:
    if fcntl is None:
        return is_running(pid)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True  # its maker has just renamed it
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return is_running(pid)
    finally:
        os.close(descriptor)
    return False
