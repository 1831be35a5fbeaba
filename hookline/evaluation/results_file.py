"""COCO results on disk: written whole, read with every mistake named.

A result is ``{"image_id", "category_id", "score"}`` and any of ``"bbox"`` [x, y, width, height], ``"segmentation"`` (a
run-length code) and ``"keypoints"`` [x, y, score, ...].
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from hookline.evaluation.predictions import Detections
from hookline.io import PathManager, atomic_open

__all__ = ["detections_from_results", "read_results", "write_results"]

_ROWS_AT_ONCE = 20_000


def write_results(detections: Detections, path: str | os.PathLike[str]) -> None:
    """Write predictions as COCO results; the file appears when it is complete.

    Args:
        detections: of a data set.
        path: of the JSON file; its folder is made.
    """
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic_open(path, "w") as file:
        file.write("[")
        for start in range(0, len(detections), _ROWS_AT_ONCE):
            rows = json.dumps(list(detections.results(start, start + _ROWS_AT_ONCE)), separators=(",", ":"))
            file.write(("," if start else "") + rows[1:-1])
        file.write("]")


def read_results(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Read a file of COCO results.

    Args:
        path: ``.json``, or ``.pkl`` of plain values as ``--out FILE.pkl`` writes; a pickle that holds anything else is
            refused before it can do anything.

    Raises:
        ValueError: the file does not hold a list of results.
    """
    with PathManager.open(os.fspath(path), "rb") as file:
        try:
            content = _PlainUnpickler(file).load() if str(path).endswith(".pkl") else json.load(file)
        except (ValueError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path} cannot be read as results: {error}") from error
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise ValueError(f"{path} is no file of COCO results: expected a list of objects, one per prediction")
    return content


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, text and numbers; importing anything is what could run foreign code."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse.

        Raises:
            UnpicklingError: always.
        """
        raise pickle.UnpicklingError(f"it holds {module}.{name}, not plain values only")


def detections_from_results(results: Sequence[dict[str, Any]]) -> Detections:
    """Put COCO results into columns.

    Args:
        results: one dict per prediction.

    Returns:
        The columns that all results have.

    Raises:
        ValueError: a result lacks a field, or has it in another form than the others; the message names its place.
    """
    for name in ("image_id", "category_id", "score"):
        _column(results, name, required=True)
    boxes, keypoints = _column(results, "bbox"), _column(results, "keypoints")
    segmentations = _column(results, "segmentation")
    if boxes is None and segmentations is None and keypoints is None and results:
        raise ValueError("the results have none of 'bbox', 'segmentation', 'keypoints'")
    for index, rle in enumerate(segmentations or ()):
        if not isinstance(rle, dict) or not {"size", "counts"} <= rle.keys():
            raise ValueError(f"result {index}: 'segmentation' must be a run-length code with 'size' and 'counts'")
    numbers = {k: number for number, k in enumerate(dict.fromkeys(row["image_id"] for row in results))}
    return Detections(
        images=list(numbers),
        image_index=np.array([numbers[row["image_id"]] for row in results], dtype=np.int64),
        category_ids=np.array([row["category_id"] for row in results], dtype=np.int64),
        scores=np.array([row["score"] for row in results], dtype=np.float64),
        boxes=None if boxes is None else _numbers(boxes, "bbox", 4).reshape(-1, 4),
        rles=segmentations,
        keypoints=None if keypoints is None else _numbers(keypoints, "keypoints", 3).reshape(len(results), -1, 3),
    )


def _column(results: Sequence[dict[str, Any]], name: str, required: bool = False) -> list | None:
    # the field of all results; None where none of them has it
    present = [name in row for row in results]
    if not all(present) and (required or any(present)):
        index = present.index(False)
        where = f"result {index} (image {results[index].get('image_id')!r})"
        raise ValueError(f"{where} has no {name!r}" + ("" if required else ", but other results have it"))
    return [row[name] for row in results] if results and all(present) else None


def _numbers(rows: list, name: str, multiple: int) -> np.ndarray:
    length = len(rows[0])
    for index, row in enumerate(rows):
        if len(row) != length or length % multiple or (name == "bbox" and length != multiple):
            raise ValueError(f"result {index}: {name!r} has {len(row)} numbers")
    return np.array(rows, dtype=np.float64)
