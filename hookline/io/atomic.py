"""Files that are whole or absent: written beside, flushed, synchronised, renamed.

The temporary file is locked while its writer lives. A kill of any kind releases the lock, which is how
`remove_leftovers` tells what a dead writer left from what a living one, in any process or container, still writes.
"""

import contextlib
import logging
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # not a POSIX system: there the writer's process number decides
    fcntl = None  # type: ignore[assignment]

__all__ = ["atomic_open", "is_running", "remove_leftovers", "sync_folder"]

_TEMPORARY = re.compile(r"^\..+\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp$")
_logger = logging.getLogger(__name__)


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike[str], mode: str = "wb", encoding: str | None = None) -> Iterator[IO[Any]]:
    """Open a file for writing that appears under its name only when it is complete and on the disk.

    The bytes go to `.<name>.<pid>.<random>.tmp` in the same folder. When the block ends, they are flushed and
    synchronised, the file is renamed over `path`, and the folder is synchronised. When the block raises, the temporary
    file is removed and an older file of that name stays as it was. A symbolic link is followed, not replaced. A missing
    folder, one that cannot be written and a full disk raise the system's OSError.

    Args:
        path: A local file, whose folder exists.
        mode: "wb" for bytes or "w" for text.
        encoding: Encoding of text, UTF-8 by default.

    Yields:
        The open file. Its `name` is the temporary path, which the block may also write to by name.

    Raises:
        ValueError: If the mode is another one.
    """
    if mode not in ("w", "wb"):
        raise ValueError(f"atomic_open writes whole files: mode must be 'wb' or 'w', not {mode!r}")
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    if mode == "w":
        encoding = encoding or "utf-8"
    file = open(temporary, mode.replace("w", "x"), encoding=encoding)  # noqa: SIM115 (closed below, in order)
    try:
        with file:
            _lock(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:
                os.replace(temporary, target)  # still locked, so nobody takes it for a leftover
        if fcntl is None:
            os.replace(temporary, target)  # such systems do not rename open files
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(target.parent)


def remove_leftovers(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove the temporary files that killed writers of `atomic_open` left in a folder.

    Files that a living process is writing are not touched.

    Args:
        folder: A local folder; one that does not exist has no leftovers. Folders below it are not searched.

    Returns:
        The removed files.
    """
    if not os.path.isdir(folder):
        return []
    removed = []
    for path in sorted(Path(folder).iterdir()):
        found = _TEMPORARY.match(path.name)
        if found is None or _is_being_written(path, int(found["pid"])):
            continue
        try:
            path.unlink()
        except OSError as error:
            _logger.warning("could not remove the leftover %s: %s", path, error)
            continue
        removed.append(path)
    return removed


def _lock(file: IO[Any]) -> None:
    """Lock the file where the file system can; without locks the writer's process number has to do."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_being_written(path: Path, pid: int) -> bool:
    if fcntl is None:
        return is_running(pid)
    try:
        with open(path, "rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return True  # its writer has just renamed it
    except OSError:
        return is_running(pid)
    return False


def is_running(pid: int) -> bool:
    """Tell whether a process of this number lives on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's process, but a running one
    return True


def sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where folders can be synchronised at all."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse; the file's own bytes are safe by now
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
