"""The folder of a run's checkpoints: which is the newest, which are damaged, which may go."""

import logging
import os
import re
import shutil
from pathlib import Path

from hookline.engine.checkpoint_errors import CheckpointError
from hookline.engine.checkpoint_read import damage_of, read_outline
from hookline.engine.checkpoint_shards import ENDING, STATE_FILE
from hookline.io import atomic_open

__all__ = ["CheckpointFolder"]

_logger = logging.getLogger(__name__)
_PERIODIC = re.compile(r"^(?P<prefix>.+)_(?P<iteration>\d{7,})\.(pth|dcp)$")
_TAG = "last_checkpoint"


class CheckpointFolder:
    """Names, order and retention of the `.pth` files, and of the `.dcp` folders of shards, in one folder.

    What is known is what lies on the disk, so a restarted process knows as much as the one before it.

    Args:
        folder: The folder; it need not exist yet.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder)

    def files(self) -> list[Path]:
        """List all checkpoint files, and folders of shards, by name."""
        files = (path for path in self.path.glob("*.pth") if path.is_file())
        folders = (path for path in self.path.glob(f"*{ENDING}") if path.is_dir())
        return sorted(path for path in (*files, *folders) if not path.name.startswith("."))

    def tagged(self) -> Path | None:
        """Return the file that `last_checkpoint` names, None where that is missing, unreadable or names no file."""
        try:
            name = (self.path / _TAG).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return None
        if not name or name != os.path.basename(name) or not (self.path / name).exists():
            return None
        return self.path / name

    def tag(self, name: str) -> None:
        """Let `last_checkpoint` name a file.

        Args:
            name: Base name of a file in this folder.

        Raises:
            CheckpointError: If the folder cannot be written or its disk is full; the old tag stays.
        """
        try:
            with atomic_open(self.path / _TAG, "w") as file:
                file.write(name)
        except OSError as error:
            raise CheckpointError(f"{self.path / name} is saved, but {_TAG} could not be written: {error}") from error

    def newest_first(self) -> list[Path]:
        """List the checkpoint files in the order in which resuming should try them.

        First come files written after `last_checkpoint` was (a kill can fall between the two), then the one it names,
        then the others from the latest iteration down. Files of an abandoned future, from before the run was set
        back, are the last.
        """
        age = {path: (_iteration(path), _modified(path)) for path in self.files()}
        ordered = sorted(age, key=lambda path: age[path], reverse=True)
        tagged = self.tagged()
        if tagged is None:
            return ordered
        tag_time = _modified(self.path / _TAG)
        later = [path for path in ordered if age[path][0] > age[tagged][0]]
        unnamed = [path for path in later if age[path][1] > tag_time]
        before = [path for path in ordered if path not in later and path != tagged]
        return [*unnamed, tagged, *before, *(path for path in later if path not in unnamed)]

    def newest_whole(self) -> Path | None:
        """Find the newest file to resume from that reads to its end with all checksums right.

        Each damaged one that is met on the way is set aside; slim files are passed over.
        """
        for path in self.newest_first():
            damage = damage_of(path)
            if damage is not None:
                self.set_aside(path, damage)
            elif read_outline(path).get("meta", {}).get("slim"):
                _logger.info("%s holds the model alone: one cannot resume from it", path)
            else:
                return path
        return None

    def set_aside(self, path: Path, reason: str) -> None:
        """Rename a damaged file to `<name>.damaged` and say why.

        Args:
            path: The file.
            reason: What is wrong with it.
        """
        aside = path.with_name(path.name + ".damaged")
        number = 1
        while aside.exists():
            number += 1
            aside = path.with_name(f"{path.name}.damaged{number}")
        try:
            path.rename(aside)
        except OSError as error:
            _logger.warning("damaged checkpoint %s (%s) is not used and could not be renamed: %s", path, reason, error)
            return
        _logger.warning("damaged checkpoint %s (%s) is not used; kept as %s", path, reason, aside.name)

    def keep_newest(self, count: int, name: str) -> list[Path]:
        """Remove the oldest periodic files of one kind, counting those that lie on the disk.

        Only names like `<prefix>_0000019.pth` are periodic: best, final and slim files are never removed, nor is the
        file that `last_checkpoint` names.

        Args:
            count: How many periodic files stay, at least 1.
            name: A base name with the prefix in question, that of the file just written.

        Returns:
            The removed files.
        """
        kind = _PERIODIC.match(name)
        if kind is None:
            return []
        found = ((path, _PERIODIC.match(path.name)) for path in self.newest_first())
        periodic = [path for path, match in found if match is not None and match["prefix"] == kind["prefix"]]
        protected = {self.path / name, self.tagged()}
        removed = []
        for path in periodic[count:]:
            if path in protected:
                continue
            try:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            except OSError as error:
                _logger.warning("could not remove the old checkpoint %s: %s", path, error)
                continue
            removed.append(path)
        return removed


def _iteration(path: Path) -> int:
    """The iteration of a file, from its name if that tells, else from inside; -1 where neither does."""
    match = _PERIODIC.match(path.name)
    if match is not None:
        return int(match["iteration"])
    try:
        inside = read_outline(path).get("iteration")
    except CheckpointError:
        return -1
    return inside if isinstance(inside, int) else -1


def _modified(path: Path) -> int:
    try:
        return (path / STATE_FILE if path.is_dir() else path).stat().st_mtime_ns
    except FileNotFoundError:
        return 0
