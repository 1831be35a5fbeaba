"""Write one checkpoint file: whole or not at all, with a checksum on every tensor."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hookline.engine.checkpoint_errors import CheckpointError
from hookline.engine.checkpoint_state import tensor_bytes
from hookline.io import atomic_open

__all__ = ["write_checkpoint"]

# Pickled structure, zip headers and alignment beside the tensors' own bytes.
_OVERHEAD_BYTES = 1 << 18
_OVERHEAD_SHARE = 0.01


def write_checkpoint(path: str | os.PathLike[str], tree: dict[str, Any]) -> None:
    """Write a state under a name that shows either the whole of it or what was there before.

    Args:
        path: File to write; its folder is made if need be.
        tree: Nested containers of CPU tensors and plain values.

    Raises:
        CheckpointError: If the folder cannot be written or the disk has too little space; no older file is touched.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_space(path, tree)
        with _checksums(), atomic_open(path) as file:
            torch.save(tree, file)
    except CheckpointError:
        raise
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as a RuntimeError about a position in the file, so the space left is told as well
        raise CheckpointError(f"could not write {path}: {error}{_space_left(path)}") from error


def _check_space(path: Path, tree: dict[str, Any]) -> None:
    size = tensor_bytes(tree)
    needed = int(size * (1 + _OVERHEAD_SHARE)) + _OVERHEAD_BYTES
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise CheckpointError(
            f"could not write {path}: the disk has {free / 1e6:.1f} MB left and the file needs {needed / 1e6:.1f} MB; "
            "older checkpoints are untouched"
        )


def _space_left(path: Path) -> str:
    with contextlib.suppress(OSError):
        return f" ({shutil.disk_usage(path.parent).free / 1e6:.1f} MB are left on its disk)"
    return ""


@contextlib.contextmanager
def _checksums() -> Iterator[None]:
    """Have torch store a CRC-32 per record, whatever the process has set: reading back relies on it."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)
