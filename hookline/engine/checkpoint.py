"""Save and load the state of a run.

One checkpoint is one file that `torch.load(..., weights_only=True)` reads:

    {"model": {...}, "optimizer": {...}, "iteration": 19, "trainer": {...}, "hooks": {...}, "meta": {...}}

`iteration` is the last finished step, counted from 0, so a resumed run begins at `iteration + 1`.
"""

import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from hookline.distributed import broadcast, get_rank, get_world_size, is_main_process
from hookline.engine.checkpoint_async import BackgroundWriter
from hookline.engine.checkpoint_collect import collect_state
from hookline.engine.checkpoint_errors import CheckpointError, UnsafeCheckpointError
from hookline.engine.checkpoint_files import CheckpointFolder
from hookline.engine.checkpoint_match import MatchReport, unwrap_model
from hookline.engine.checkpoint_read import read_checkpoint
from hookline.engine.checkpoint_restore import restore_leniently, restore_strictly
from hookline.engine.checkpoint_state import HostBuffers, to_host
from hookline.engine.checkpoint_write import write_checkpoint
from hookline.io import remove_folder_leftovers, remove_leftovers

__all__ = ["CheckpointError", "Checkpointer", "DetectionCheckpointer", "UnsafeCheckpointError"]

_logger = logging.getLogger(__name__)


class Checkpointer:
    """Save a model and what belongs to it, and load it again.

    Files appear whole or not at all. Rank 0 writes, every rank loads. Anything with `state_dict` and
    `load_state_dict` can be saved beside the model; something with a method `checkpointables()` that returns a dict of
    such objects, like the trainer, stands for all of them.

    Args:
        model: The model; wrappers (DistributedDataParallel, torch.compile) are looked through.
        save_dir: Folder of the checkpoints; without one nothing is saved.
        save_to_disk: Whether this process writes; by default rank 0 does.
        asynchronous: Write in a thread from a copy in CPU memory. At most one write is in flight; the next `save` or
            `wait` raises its error.
        max_to_keep: How many periodic files (`<prefix>_0000019.pth`) stay on the disk; all by default.
        on_save_error: "raise", or "warn" to train on when a disk is full or a folder cannot be written.
        converters: Functions that `load` applies to a file's state dict, to give it the model's names.
        **checkpointables: What is saved beside the model, by its key in the file.

    Attributes:
        last_save_s: Seconds that the last finished save took until its file was safe, None before.
        last_block_s: Seconds for which the last save held up its caller, None before.
        last_saved_iteration: Iteration of the last full save from here whose file is safe, None before.
        report: What matched when weights were loaded last, None before.

    Raises:
        ValueError: If `max_to_keep` or `on_save_error` has no meaning.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str | os.PathLike[str] = "",
        *,
        save_to_disk: bool | None = None,
        asynchronous: bool = False,
        max_to_keep: int | None = None,
        on_save_error: str = "raise",
        converters: Iterable[Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]] = (),
        **checkpointables: Any,
    ) -> None:
        if max_to_keep is not None and max_to_keep < 1:
            raise ValueError(f"max_to_keep={max_to_keep}: expected at least 1, or None to keep all")
        if on_save_error not in ("raise", "warn"):
            raise ValueError(f"on_save_error={on_save_error!r}: expected 'raise' or 'warn'")
        self.model = model
        self.save_dir = os.fspath(save_dir)
        self.save_to_disk = is_main_process() if save_to_disk is None else save_to_disk
        self.asynchronous = asynchronous
        self.max_to_keep = max_to_keep
        self.on_save_error = on_save_error
        self.converters = list(converters)
        self.checkpointables: dict[str, Any] = dict(checkpointables)
        self.last_save_s: float | None = None
        self.last_block_s: float | None = None
        self.last_saved_iteration: int | None = None
        self.report: MatchReport | None = None
        self._folder = CheckpointFolder(self.save_dir)
        self._writer = BackgroundWriter()
        self._buffers = HostBuffers()
        leftovers = (remove_leftovers, remove_folder_leftovers) if self._writes() else ()
        for path in (path for remove in leftovers for path in remove(self.save_dir)):
            _logger.info("removed %s, left by a writer that was killed", path)

    def add_checkpointable(self, key: str, checkpointable: Any) -> None:
        """Save one more thing beside the model.

        Args:
            key: Its key in the file.
            checkpointable: Something with `state_dict` and `load_state_dict`.

        Raises:
            KeyError: If the key is taken.
        """
        if key in self.checkpointables or key in ("model", "iteration", "meta"):
            raise KeyError(f"the checkpoint key {key!r} is taken")
        self.checkpointables[key] = checkpointable

    def save(self, name: str, *, iteration: int | None = None, save_optimizer: bool = True, **meta: Any) -> None:
        """Save to `<save_dir>/<name>.pth`; ranks that do not write return at once.

        Then `last_checkpoint` names the file, and periodic files beyond `max_to_keep` are removed.

        Args:
            name: Base name without ending, such as `model_0000019`, `model_final`.
            iteration: Last finished step; by default that of the trainer among the checkpointables.
            save_optimizer: False for a slim file of the model alone, from which one cannot resume; `last_checkpoint`
                does not name it.
            **meta: Plain values to keep under "meta".
        """
        self.wait()
        if not self._writes():
            return
        started = time.perf_counter()
        try:
            path = self._path_of(name)
            state = self.collect(iteration, save_optimizer, meta)
            state = self._buffers.copy(state) if self.asynchronous else to_host(state)
            write = partial(self._write, path, state, save_optimizer, started)
            if self.asynchronous:
                self._writer.start(write)
            else:
                self._or_warn(write)
        finally:
            self.last_block_s = time.perf_counter() - started

    def wait(self) -> None:
        """Wait for a write in flight; the error of a failed one is raised here, or logged if so configured."""
        self._or_warn(self._writer.wait)

    def collect(
        self, iteration: int | None = None, save_optimizer: bool = True, meta: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Gather and check what a file would hold, without writing it.

        Args:
            iteration: As in `save`.
            save_optimizer: As in `save`.
            meta: Plain values to keep under "meta".

        Returns:
            New containers around the live tensors.
        """
        if iteration is None:
            iteration = getattr(self.checkpointables.get("trainer"), "iter", None)
        return collect_state(self.model, self._parts() if save_optimizer else None, iteration, meta or {})

    def load(
        self, path: str | os.PathLike[str], checkpointables: Iterable[str] | None = None, *, strict: bool = False
    ) -> dict[str, Any]:
        """Load weights, and those other parts that both the file and this object have.

        What does not match is logged as a table. It is an error if nothing matches.

        Args:
            path: File or URL: a checkpoint, a bare state dict, or a pickled zoo file. With an empty path nothing is
                loaded.
            checkpointables: Keys to load besides the model; all by default, none with an empty list.
            strict: Demand that the model's names and shapes are exactly those of the file.

        Returns:
            The rest of the file: what was not loaded, such as "iteration" and "meta".
        """
        if not os.fspath(path):
            _logger.info("no checkpoint given: the model keeps its initial weights")
            return {}
        parts = self._parts()
        wanted = {key: parts[key] for key in parts if checkpointables is None or key in set(checkpointables)}
        content = self._read(path, wanted)
        for converter in self.converters:
            content["model"] = converter(content["model"])
        self.report = restore_leniently(os.fspath(path), content, unwrap_model(self.model), wanted, strict=strict)
        return {key: value for key, value in content.items() if key != "model" and key not in wanted}

    def resume(self, path: str | os.PathLike[str] = "") -> int:
        """Continue a run: load everything, strictly. All ranks must call it.

        Args:
            path: A certain file. By default the newest file of `save_dir` that reads whole: each damaged one before
                it is reported and gets the ending `.damaged`.

        Returns:
            The last finished iteration; -1 if there is nothing to continue, then nothing was changed.
        """
        found = os.fspath(path) or self._agree_on_newest()
        return self._restore(found).get("iteration", -1) if found else -1

    def resume_or_load(self, path: str | os.PathLike[str], *, resume: bool = True) -> dict[str, Any]:
        """Continue the run in `save_dir` if there is one, else start from given weights. All ranks must call it.

        Args:
            path: Weights to start from, loaded leniently; may be empty.
            resume: False to leave `save_dir` alone.

        Returns:
            What of the file was not loaded; "iteration" is in it only when resumed, else the run starts at 0.
        """
        found = self._agree_on_newest() if resume else ""
        if found:
            return self._restore(found)
        rest = self.load(path, checkpointables=[])
        rest.pop("iteration", None)
        return rest

    def has_checkpoint(self) -> bool:
        """Tell whether `save_dir` has a checkpoint file."""
        return bool(self.save_dir) and bool(self._folder.files())

    def get_checkpoint_file(self) -> str:
        """Return the file that resuming would try first, an empty string if there is none."""
        return next(iter(self.get_all_checkpoint_files()), "")

    def get_all_checkpoint_files(self) -> list[str]:
        """List the checkpoint files of `save_dir`, the newest first."""
        return [os.fspath(path) for path in self._folder.newest_first()] if self.save_dir else []

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Let `last_checkpoint` name a file of `save_dir`.

        Args:
            last_filename_basename: Its name with ending.
        """
        self._folder.tag(last_filename_basename)

    def _writes(self) -> bool:
        return bool(self.save_dir) and self.save_to_disk

    def _path_of(self, name: str) -> str:
        if not name or name != os.path.basename(name) or name.startswith("."):
            raise ValueError(f"checkpoint name {name!r}: expected a file name without folder and ending")
        return os.path.join(self.save_dir, f"{name}.pth")

    def _parts(self) -> dict[str, Any]:
        """What is saved beside the model, with the trainer's parts in its place."""
        parts: dict[str, Any] = {}
        for key, thing in self.checkpointables.items():
            expand = getattr(thing, "checkpointables", None)
            parts.update(expand() if callable(expand) else {key: thing})
        return parts

    def _write(self, path: str, state: dict[str, Any], is_full: bool, started: float) -> None:
        name = os.path.basename(path)
        write_checkpoint(path, state)
        if is_full:
            self._folder.tag(name)
            self.last_saved_iteration = state.get("iteration")
        self.last_save_s = time.perf_counter() - started
        _logger.info("saved %s in %.2f s", path, self.last_save_s)
        if self.max_to_keep is not None:
            self._folder.keep_newest(self.max_to_keep, name)

    def _or_warn(self, work: Callable[[], None]) -> None:
        try:
            work()
        except CheckpointError as error:
            if self.on_save_error == "raise":
                raise
            _logger.warning("not saved, training goes on: %s", error)

    def _agree_on_newest(self) -> str:
        """The newest whole file, looked for by rank 0 for all; an error there is an error everywhere."""
        found: str | CheckpointError = ""
        if is_main_process() and self.save_dir:
            try:
                found = os.fspath(self._folder.newest_whole() or "")
            except CheckpointError as error:
                error.of_all_ranks = True
                found = error
        found = broadcast(found)
        if isinstance(found, CheckpointError):
            raise found
        return found

    def _read(self, path: str | os.PathLike[str], parts: Mapping[str, Any]) -> dict[str, Any]:
        """Read a file; its tensors need not be copied where they only go to the model."""
        return read_checkpoint(path, mmap=not parts)

    def _restore(self, path: str) -> dict[str, Any]:
        try:
            content = self._read(path, self._parts())
        except CheckpointError as error:
            if error.of_all_ranks:
                raise
            place = f"rank {get_rank()} on {socket.gethostname()}: " if get_world_size() > 1 else ""
            raise CheckpointError(f"{place}{error}") from error
        parts = self._parts()
        self.report = restore_strictly(path, content, unwrap_model(self.model), parts)
        return {key: value for key, value in content.items() if key != "model" and key not in parts}


DetectionCheckpointer = Checkpointer
