"""The format of a sharded checkpoint: a folder `<name>.dcp`.

    state.pth       everything but the sharded tensors, in whose places there are tensors on the meta device; and the
                    size and checksum of each other file, under "files"
    __0_0.distcp    the parts of rank 0, and so on, as `torch.distributed.checkpoint` (DCP) writes them
    .metadata       which part lies where

Sharded tensors have their key path as name, such as `model.backbone.stem.conv1.weight` or
`optimizer.state.0.exp_avg`. Everything else is as in an ordinary file.
"""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from hookline.engine.checkpoint_errors import CheckpointError, UnsafeCheckpointError
from hookline.engine.checkpoint_state import plain_tensor, plain_tree
from hookline.engine.shards import is_sharded

__all__ = [
    "ENDING",
    "STATE_FILE",
    "damaged_file",
    "file_sums",
    "fill",
    "is_shard_folder",
    "read_parts",
    "take_sharded",
    "write_parts",
]

ENDING = ".dcp"
STATE_FILE = "state.pth"

_METADATA = ".metadata"
_BLOCK_BYTES = 1 << 22
_CHECKING_THREADS = 8

# what DCP's metadata may refer to
_MODULES = ("torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem")
_CLASSES = {
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "Metadata",
    "MetadataIndex",
    "StorageMeta",
    "TensorProperties",
    "TensorStorageMetadata",
    "_MEM_FORMAT_ENCODING",
    "_StorageInfo",
}
_OTHERS = {("torch", "Size"), ("torch.serialization", "_get_layout"), ("collections", "OrderedDict")}
_PATHS = {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath"}


def is_shard_folder(path: str | os.PathLike[str]) -> bool:
    """Tell whether something is a sharded checkpoint, by its name and kind."""
    return os.fspath(path).rstrip("/").endswith(ENDING) and os.path.isdir(path)


def take_sharded(found: dict[str, Any]) -> Callable[[torch.Tensor, str], torch.Tensor]:
    """Return a function for `plain_tree` that puts sharded tensors aside.

    Args:
        found: Filled with them by their key paths.

    Returns:
        A function that gives a meta tensor in place of a sharded one.
    """

    def take(tensor: torch.Tensor, path: str) -> torch.Tensor:
        if not is_sharded(tensor):
            return plain_tensor(tensor, path)
        if path in found:
            raise CheckpointError(f"two sharded tensors have the key path {path}: rename one of them")
        found[path] = tensor.detach()
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    return take


def fill(tree: Any, make: Callable[[torch.Tensor], torch.Tensor]) -> tuple[Any, dict[str, torch.Tensor]]:
    """Put tensors into the places of the sharded ones.

    Args:
        tree: What `state.pth` holds.
        make: Gives the tensor for a meta tensor.

    Returns:
        The tree with those tensors, and the tensors by key path.
    """
    made: dict[str, torch.Tensor] = {}

    def place(tensor: torch.Tensor, path: str) -> torch.Tensor:
        if tensor.is_meta:
            tensor = made[path] = make(tensor)
        return tensor

    return plain_tree(tree, take=place), made


def write_parts(folder: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write this rank's parts and flush them to the disk; every rank calls it.

    Args:
        folder: Seen by all ranks.
        tensors: Sharded tensors by name.

    Raises:
        CheckpointError: On every rank, if one could not write.
    """
    import torch.distributed.checkpoint as dcp

    from hookline.distributed import cpu_group

    try:
        with cpu_group() as group:
            dcp.save(
                dict(tensors),
                storage_writer=dcp.FileSystemWriter(folder),
                planner=dcp.DefaultSavePlanner(flatten_state_dict=False),
                process_group=group,
            )
    except dcp.CheckpointException as error:
        reasons = "; ".join(f"rank {rank}: {failure[0]}" for rank, failure in sorted(error.failures.items()))
        raise CheckpointError(f"could not write {folder}: {reasons}", of_all_ranks=True) from error


def read_parts(folder: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor]) -> None:
    """Read into tensors, of sharded ones this rank's part; no other rank is needed.

    Args:
        folder: The checkpoint.
        tensors: Whole or sharded ones by name; changed in place.

    Raises:
        CheckpointError: If a file is missing or damaged, or a tensor is not in it.
    """
    from torch.distributed.checkpoint import DefaultLoadPlanner

    try:
        reader = _reader(folder)
        metadata = reader.read_metadata()
        planner = DefaultLoadPlanner(flatten_state_dict=False)
        planner.set_up_planner(dict(tensors), metadata, True)
        reader.set_up_storage_reader(metadata, True)
        plan = reader.prepare_local_plan(planner.create_local_plan())
        plan = planner.finish_plan(reader.prepare_global_plan(planner.create_global_plan([plan]))[0])
        reader.read_data(plan, planner).wait()
    except CheckpointError:
        raise
    except Exception as error:  # what a damaged file makes of the readers inside of torch is not known
        raise CheckpointError(
            f"{folder} is damaged or no sharded checkpoint: {type(error).__name__}: {error}"
        ) from error


def file_sums(folder: str | os.PathLike[str], pattern: str) -> dict[str, list[int]]:
    """Read files to their ends.

    Args:
        folder: Where they are.
        pattern: Of their names, with `*`.

    Returns:
        [size in bytes, CRC-32] by name.
    """
    return {path.name: _sum(path) for path in sorted(Path(folder).glob(pattern))}


def damaged_file(folder: str | os.PathLike[str], files: Mapping[str, list[int]]) -> str | None:
    """Compare files with what was noted of them.

    Args:
        folder: Where they are.
        files: As `file_sums` gave them.

    Returns:
        What is wrong, or None.
    """
    with ThreadPoolExecutor(_CHECKING_THREADS) as threads:
        for problem in threads.map(lambda name: _problem(Path(folder) / name, files[name]), files):
            if problem is not None:
                return problem
    return None


def _problem(path: Path, noted: list[int]) -> str | None:
    try:
        size = path.stat().st_size
        if size != noted[0]:
            return f"{path.name} has {size} bytes, expected {noted[0]}"
        return None if _sum(path) == noted else f"the checksum of {path.name} is wrong"
    except FileNotFoundError:
        return f"{path.name} is missing"
    except OSError as error:
        return f"{path.name} could not be read: {error}"


def _sum(path: Path) -> list[int]:
    size = checksum = 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            size += len(block)
            checksum = zlib.crc32(block, checksum)
    return [size, checksum]


def _reader(folder: str | os.PathLike[str]) -> Any:
    """Make a reader whose metadata, a pickle, can refer to nothing but what describes tensors."""
    from torch.distributed.checkpoint import FileSystemReader
    from torch.distributed.checkpoint.metadata import StorageMeta

    class PlainReader(FileSystemReader):
        def read_metadata(self, *unused: Any, **options: Any) -> Any:
            path = Path(folder) / _METADATA
            with open(path, "rb") as file:
                try:
                    metadata = _MetadataUnpickler(file).load()
                except UnsafeCheckpointError as error:
                    raise UnsafeCheckpointError(f"{path} {error}") from None
            metadata.storage_meta = metadata.storage_meta or StorageMeta()
            metadata.storage_meta.load_id = self.load_id
            return metadata

    return PlainReader(folder)


class _MetadataUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in _MODULES and name in _CLASSES:
            return super().find_class(module, name)
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        is_path = module.startswith("pathlib") and name in _PATHS
        if is_dtype or is_path or (module, name) in _OTHERS:
            return super().find_class(module, name)
        if (module, name) == ("builtins", "getattr"):
            return _member
        raise UnsafeCheckpointError(f"refers to {module}.{name}; nothing of it was executed and it is not loaded")


def _member(kind: Any, name: Any) -> Enum:
    """Stand in for `getattr`, by which Python 3.11.0 to 3.11.3 pickle the members of an Enum, and do only that.

    Raises:
        UnsafeCheckpointError: If something else is asked for.
    """
    if isinstance(kind, type) and issubclass(kind, Enum) and isinstance(name, str) and name in kind.__members__:
        return kind.__members__[name]
    raise UnsafeCheckpointError(
        f"refers to builtins.getattr({kind!r}, {name!r}), which is no member of an Enum; nothing of it was executed "
        "and it is not loaded"
    )
