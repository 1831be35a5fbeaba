"""Read back what a W&B run has in its local file, which W&B itself needs only for uploading."""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["read_history"]

BLOCK = 32768  # the file is a sequence of blocks of LevelDB's log format
FILE_HEADER = 7
CHUNK_HEADER = struct.Struct("<IHB")  # checksum, length, type
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def read_history(path: str | Path) -> list[dict[str, Any]]:
    """Read the rows of a ``.wandb`` file; one that ends in the middle of a record, after a kill, is read up to there.

    Args:
        path: the file.

    Returns:
        One dict a row with what was logged, ``_step`` among it, in the order of the file.
    """
    messages = importlib.import_module("wandb.proto.wandb_internal_pb2")
    rows = []
    for data in _records(Path(path).read_bytes()):
        record = messages.Record.FromString(data)
        if record.WhichOneof("record_type") == "history":
            row: dict[str, Any] = {}
            for item in record.history.item:
                _put(row, list(item.nested_key) or [item.key], json.loads(item.value_json))
            rows.append({**row, "_step": record.history.step.num})
    return rows


def _records(content: bytes) -> Iterator[bytes]:
    place, parts = FILE_HEADER, list[bytes]()
    while place + CHUNK_HEADER.size <= len(content):
        left = BLOCK - place % BLOCK
        if left < CHUNK_HEADER.size:  # too little for a header: the block's filling
            place += left
            continue
        _, length, kind = CHUNK_HEADER.unpack_from(content, place)
        place += CHUNK_HEADER.size
        if kind not in (FULL, FIRST, MIDDLE, LAST) or place + length > len(content):
            return
        if kind in (FULL, FIRST):
            parts = []
        parts.append(content[place : place + length])
        place += length
        if kind in (FULL, LAST):
            yield b"".join(parts)


def _put(row: dict[str, Any], keys: list[str], value: Any) -> None:
    """Set a value under a path of keys: that of a scalar is its name, what a picture consists of has longer ones."""
    for key in keys[:-1]:
        row = row.setdefault(key, {})
    row[keys[-1]] = value
