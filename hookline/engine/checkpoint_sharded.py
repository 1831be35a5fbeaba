"""Save and load the state of a fully sharded run: each rank writes and reads its own parts."""

import logging
import os
import shutil
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from hookline.distributed import all_gather, broadcast, get_rank
from hookline.engine.checkpoint import Checkpointer
from hookline.engine.checkpoint_collect import collect_state
from hookline.engine.checkpoint_errors import CheckpointError
from hookline.engine.checkpoint_match import unwrap_model
from hookline.engine.checkpoint_read import read_checkpoint, read_outline
from hookline.engine.checkpoint_shards import (
    ENDING,
    STATE_FILE,
    file_sums,
    fill,
    is_shard_folder,
    read_parts,
    take_sharded,
    write_parts,
)
from hookline.engine.checkpoint_state import to_host
from hookline.engine.checkpoint_write import write_checkpoint
from hookline.engine.shards import empty_shard_like, is_sharded, local_bytes, sharding_of, take_shard
from hookline.io import AtomicFolder

__all__ = ["ShardedCheckpointer"]

Result = TypeVar("Result")

_logger = logging.getLogger(__name__)


class ShardedCheckpointer(Checkpointer):
    """A `Checkpointer` of a fully sharded model, whose checkpoints are folders `<name>.dcp`; all ranks must call it.

    A folder appears whole or not at all, and can be resumed from on any number of ranks, also on one. What is not
    sharded, such as buffers and the states of trainer and hooks, is that of rank 0. Ordinary files can be loaded and
    resumed from as well; each rank then keeps its part of them.

    The folder `save_dir` must be one that all ranks share.

    Args:
        *args: As in `Checkpointer`.
        **options: As in `Checkpointer`.

    Raises:
        ValueError: If the model is not fully sharded, writing is to be asynchronous, or done by certain ranks.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        if options.get("asynchronous"):
            raise ValueError("asynchronous=True: shards are written by all ranks together, not in a thread")
        if options.get("save_to_disk") is not None:
            raise ValueError(f"save_to_disk={options['save_to_disk']}: each rank writes its own part")
        super().__init__(*args, **options)
        self._like = sharding_of(unwrap_model(self.model))
        if self._like is None:
            raise ValueError("the model is not fully sharded: use Checkpointer")

    def save(self, name: str, *, iteration: int | None = None, save_optimizer: bool = True, **meta: Any) -> None:
        """Save to `<save_dir>/<name>.dcp`; every rank must call it.

        Args:
            name: As in `Checkpointer.save`.
            iteration: As there.
            save_optimizer: As there.
            **meta: As there.
        """
        if not self.save_dir:
            return
        started = time.perf_counter()
        shards: dict[str, Any] = {}
        path = self._path_of(name)
        try:
            collect = partial(self._collect, iteration, save_optimizer, meta, shards)
            self._or_warn(lambda: self._write_folder(path, _together(collect), shards, save_optimizer, started))
        finally:
            self.last_block_s = time.perf_counter() - started

    def _path_of(self, name: str) -> str:
        return os.path.splitext(super()._path_of(name))[0] + ENDING

    def _collect(
        self, iteration: int | None, save_optimizer: bool, meta: Mapping[str, Any], shards: dict[str, Any]
    ) -> dict[str, Any]:
        if iteration is None:
            iteration = getattr(self.checkpointables.get("trainer"), "iter", None)
        parts = self._parts() if save_optimizer else None
        return collect_state(self.model, parts, iteration, meta, take_sharded(shards))

    def _write_folder(
        self, path: str, state: dict[str, Any], shards: dict[str, Any], is_full: bool, started: float
    ) -> None:
        needed = sum(all_gather(local_bytes(shards.values())))
        folder = _together(lambda: _new_folder(path, needed) if self._writes() else None)
        temporary = str(broadcast(str(folder.temporary) if folder is not None else ""))
        try:
            _together(lambda: _expect_seen(path, temporary))  # else each machine would make a folder of its own
            write_parts(temporary, shards)
            sums = _together(lambda: file_sums(temporary, f"__{get_rank()}_*"))
            files = {name: found for rank in all_gather(sums) for name, found in rank.items()}
            _together(lambda: None if folder is None else _finish(folder, to_host(state), files))
        except BaseException:
            if folder is not None:
                folder.discard()
            raise
        _together(lambda: self._name_it(os.path.basename(path), is_full))
        if is_full:
            self.last_saved_iteration = state.get("iteration")
        self.last_save_s = time.perf_counter() - started
        if self._writes():
            _logger.info("saved %s in %.2f s", path, self.last_save_s)

    def _name_it(self, name: str, is_full: bool) -> None:
        """Let the others know what is there now; rank 0 does it for all."""
        if not self._writes():
            return
        if is_full:
            self._folder.tag(name)
        if self.max_to_keep is not None:
            self._folder.keep_newest(self.max_to_keep, name)

    def _read(self, path: str | os.PathLike[str], parts: Mapping[str, Any]) -> dict[str, Any]:
        """Read this rank's part; of an ordinary file, keep this rank's part of the optimizer's state.

        The model cuts what is loaded into it by itself.
        """

        def read() -> dict[str, Any]:
            if is_shard_folder(path):
                return self._read_folder(path, parts)
            content = read_checkpoint(path, mmap=not parts)
            for key, part in parts.items():
                if isinstance(part, torch.optim.Optimizer) and key in content:
                    content[key] = _cut_optimizer_state(part, content[key])
            return content

        return _together(read)

    def _read_folder(self, path: str | os.PathLike[str], parts: Mapping[str, Any]) -> dict[str, Any]:
        outline = read_outline(path)
        del outline["files"]
        if not parts:
            outline = {key: value for key, value in outline.items() if key in ("model", "iteration", "meta")}
        content, shards = fill(outline, lambda tensor: empty_shard_like(tensor, self._like))
        read_parts(path, shards)
        return content


def _together(work: Callable[[], Result]) -> Result:
    """Do something on every rank; where it fails on one, all ranks raise, so that none waits for another.

    Raises:
        CheckpointError: Naming the ranks and their reasons.
        RuntimeError: The same, where a rank fails for another reason, such as too little memory; that rank raises
            its own error.
    """
    result, failure, unexpected = None, None, None
    try:
        result = work()
    except (CheckpointError, OSError) as error:
        failure = (str(error), True)
    except Exception as error:
        failure, unexpected = (f"{type(error).__name__}: {error}", False), error
    found = {rank: failure for rank, failure in enumerate(all_gather(failure, patient=True)) if failure is not None}
    if not found:
        return result  # type: ignore[return-value]
    if unexpected is not None:
        raise unexpected
    failures = {rank: text for rank, (text, _) in found.items()}
    if not all(is_expected for _, is_expected in found.values()):
        raise RuntimeError("; ".join(f"rank {rank}: {text}" for rank, text in failures.items()))
    if len(set(failures.values())) == 1:
        raise CheckpointError(next(iter(failures.values())), of_all_ranks=True)
    raise CheckpointError("; ".join(f"rank {rank}: {text}" for rank, text in failures.items()), of_all_ranks=True)


def _new_folder(path: str, needed: int) -> AtomicFolder:
    """Make the temporary folder of a checkpoint whose parts need so many bytes.

    Raises:
        CheckpointError: If the disk has too little space.
    """
    parent = Path(path).parent
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if needed > free:
        raise CheckpointError(
            f"could not write {path}: the disk has {free / 1e6:.1f} MB left and the parts of all ranks need "
            f"{needed / 1e6:.1f} MB; older checkpoints are untouched"
        )
    return AtomicFolder(path)


def _expect_seen(path: str, temporary: str) -> None:
    """Check that this rank sees the folder that rank 0 made.

    Raises:
        CheckpointError: If not; nothing was written then.
    """
    if not os.path.isdir(temporary):
        raise CheckpointError(
            f"could not write {path}: {socket.gethostname()} does not see {temporary}, which rank 0 made: the folder "
            "of the run (train.output_dir) must be one that all machines share"
        )


def _finish(folder: AtomicFolder, state: dict[str, Any], files: dict[str, list[int]]) -> None:
    """Add what is not sharded, and give the folder its name.

    Raises:
        CheckpointError: If not all parts are seen from here.
    """
    unseen = [name for name in files if not (folder.temporary / name).is_file()]
    if unseen:
        raise CheckpointError(
            f"{folder.path}: rank 0 does not see {', '.join(unseen[:4])}, which other ranks wrote: the folder of the "
            "run (train.output_dir) must be one that all machines share"
        )
    files = {**files, **file_sums(folder.temporary, ".metadata")}
    write_checkpoint(folder.temporary / STATE_FILE, {**state, "files": files})
    folder.finish()


def _cut_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Keep this rank's part of what an optimizer has for each element of a sharded parameter."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    numbers = [number for group in state["param_groups"] for number in group["params"]]
    by_number = dict(zip(numbers, params, strict=False))  # if they differ, loading says so

    def cut(number: int, value: Any) -> Any:
        param: Any = by_number.get(number)
        fits = isinstance(value, torch.Tensor) and is_sharded(param) and value.shape == param.shape and value.dim()
        return take_shard(value, param) if fits else value

    cut_state = {
        number: {name: cut(number, value) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    return {**state, "state": cut_state}
