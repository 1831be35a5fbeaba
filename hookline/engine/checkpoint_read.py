"""Read checkpoints of ours and of others without running anything that they contain."""

import difflib
import os
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from hookline.engine.checkpoint_errors import CheckpointError, UnsafeCheckpointError
from hookline.engine.checkpoint_shards import STATE_FILE, damaged_file, fill, is_shard_folder, read_parts
from hookline.engine.checkpoint_zoo import read_zoo_pickle
from hookline.io import PathManager

__all__ = ["damage_of", "read_checkpoint", "read_outline"]

_BLOCK_BYTES = 1 << 22


def read_checkpoint(path: str | os.PathLike[str], *, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint into CPU memory.

    Read are files of `torch.save`, by `weights_only=True` alone, and pickled files of Detectron2's model zoo, by a
    reader that admits arrays and plain values alone. A file may hold `{"model": {...}, ...}`, `{"state_dict": {...},
    ...}` or the bare state dict. A sharded checkpoint, a folder `<name>.dcp`, is read as the file that it would be
    without shards.

    Args:
        path: A path or URL that `PathManager` knows.
        mmap: Let tensors be views of the file where its format allows; what is not looked at is then not read.

    Returns:
        A dict whose key "model" is the state dict; the other keys are those of the file.

    Raises:
        CheckpointError: If the file is missing, damaged or no checkpoint; an UnsafeCheckpointError if it contains more
            than plain data.
    """
    local = _local_file(os.fspath(path))
    if is_shard_folder(local):
        content, tensors = fill(read_outline(local), lambda outline: torch.empty(outline.shape, dtype=outline.dtype))
        del content["files"]
        read_parts(local, tensors)
        return content
    content = _read_by_format(local, mmap)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a checkpoint: it holds a {type(content).__name__}, expected a dict")
    return _with_model(content, os.fspath(path))


def read_outline(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what a checkpoint holds, but the values of large tensors only when they are looked at.

    Args:
        path: As in `read_checkpoint`. Sharded tensors of a folder are on the meta device, and its files are described
            under "files".

    Raises:
        CheckpointError: As in `read_checkpoint`.
    """
    local = _local_file(os.fspath(path))
    if not is_shard_folder(local):
        return read_checkpoint(path, mmap=True)
    content = _read_by_format(os.path.join(local, STATE_FILE), mmap=False)
    if not isinstance(content, dict) or not isinstance(content.get("files"), dict):
        raise CheckpointError(f"{local} is not a sharded checkpoint: its {STATE_FILE} describes no files")
    return _with_model(content, os.fspath(path))


def damage_of(path: str | os.PathLike[str]) -> str | None:
    """Read a checkpoint of ours to its end and compare all checksums.

    Args:
        path: A local file, or a folder of shards, as `Checkpointer` writes it.

    Returns:
        What is wrong, or None if it is whole.

    Raises:
        CheckpointError: If the file may not be read, which is no damage.
        UnsafeCheckpointError: If the file is whole, but refers to code.
    """
    if not is_shard_folder(path):
        return _damage_of_file(path)
    damage = _damage_of_file(os.path.join(path, STATE_FILE))
    return damage if damage is not None else damaged_file(path, read_outline(path)["files"])


def _damage_of_file(path: str | os.PathLike[str]) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                with archive.open(entry) as file:  # reading to the end compares the checksum
                    while file.read(_BLOCK_BYTES):
                        pass
    except PermissionError as error:
        raise CheckpointError(f"could not read the checkpoint {path}: {error}") from error
    except Exception as error:  # a damaged archive may raise anything
        return str(error) or type(error).__name__
    try:
        read_checkpoint(path, mmap=True)
    except UnsafeCheckpointError:
        raise
    except CheckpointError as error:
        return str(error)
    return None


def _local_file(path: str) -> str:
    try:
        local = PathManager.get_local_path(path)
    except OSError as error:
        raise CheckpointError(f"could not fetch the checkpoint {path}: {error}") from error
    if os.path.isdir(local) and not is_shard_folder(local):
        raise CheckpointError(f"{path} is a folder, expected a checkpoint file{_names_in(Path(local), '*.p*')}")
    if not os.path.exists(local):
        raise CheckpointError(f"checkpoint {path} does not exist{_near(Path(local))}")
    return local


def _near(path: Path) -> str:
    if not path.parent.is_dir():
        return f": there is no folder {path.parent}"
    found = difflib.get_close_matches(path.name, [p.name for p in path.parent.iterdir()], n=3, cutoff=0.5)
    return f"; near names in its folder: {', '.join(found)}" if found else _names_in(path.parent, "*.pth")


def _names_in(folder: Path, pattern: str) -> str:
    names = sorted(path.name for path in folder.glob(pattern))[-5:]
    return f"; it has: {', '.join(names)}" if names else ""


def _read_by_format(local: str, mmap: bool) -> Any:
    try:
        with open(local, "rb") as file:
            start = file.read(64)
    except OSError as error:
        raise CheckpointError(f"could not read the checkpoint {local}: {error}") from error
    is_zip = start[:4] == b"PK\x03\x04"
    if local.endswith(".pkl") and not is_zip:
        return read_zoo_pickle(local)
    if not is_zip and start[:1] != b"\x80":
        raise CheckpointError(f"{local} is not a checkpoint: {_looks_like(start)}")
    return _read_torch(local, mmap and is_zip)


def _looks_like(start: bytes) -> str:
    if not start:
        return "it is empty"
    if start.lstrip()[:1] == b"<":
        return "it looks like a web page, perhaps of a failed download"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, fetch the file itself by `git lfs pull`"
    if not start.strip(b"\0"):
        return "it begins with zeros, as after a crash of the system"
    return f"it begins with {start[:16]!r}, expected a file of torch.save or a pickled zoo file"


def _read_torch(local: str, mmap: bool) -> Any:
    try:
        return torch.load(local, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise UnsafeCheckpointError(_refusal(local, str(error))) from error
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, AttributeError, IndexError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{local} is damaged or not a checkpoint: {reason}") from error


def _refusal(local: str, message: str) -> str:
    found = re.search(r"GLOBAL ([\w.]+)", message) or re.search(
        r"[Uu]nsupported (?:global|class|operand)\W+([\w.]+)", message
    )
    what = f"refers to {found[1]}" if found else "holds more than tensors and plain values"
    return (
        f"{local} {what}; nothing of it was executed and it is not loaded. Hookline reads plain data only: if you "
        'trust the file, load it elsewhere and save {"model": model.state_dict()} anew'
    )


def _with_model(content: dict[str, Any], path: str) -> dict[str, Any]:
    """Find the state dict under the names that are in use.

    Raises:
        CheckpointError: If there is none.
    """
    if "model" not in content and "state_dict" in content:
        content = {"model": content["state_dict"], **{k: v for k, v in content.items() if k != "state_dict"}}
    elif "model" not in content and content and all(isinstance(value, torch.Tensor) for value in content.values()):
        content = {"model": content}
    if "model" not in content:
        keys = ", ".join(sorted(map(str, content))[:8])
        raise CheckpointError(
            f"{path} is not a checkpoint: it has no 'model' and no 'state_dict', only: {keys or 'nothing'}"
        )
    model = content["model"]
    if not isinstance(model, dict):
        raise CheckpointError(f"'model' in {path} is a {type(model).__name__}, expected a dict of tensors")
    if model and not any(isinstance(value, torch.Tensor) for value in model.values()):
        raise CheckpointError(f"'model' in {path} holds no tensors, the first key is {next(iter(model))!r}")
    return content
