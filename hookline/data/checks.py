"""The check of a data set before the first iteration: everything that can be known without decoding an image."""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hookline.data.catalog import Record
from hookline.io import PathManager
from hookline.structures import BoxMode

MAX_SHOWN = 10
LISTED_FROM = (
    100  # so many files of one folder are looked up by listing it once; 20 times faster on network file systems
)


class DatasetCheckError(ValueError):
    """A data set cannot be trained on; the text names file and annotation id of each of the first problems."""


def check_records(
    records: Iterable[Record], metadata: Any = None, num_classes: int | None = None, *, check_files: bool = True
) -> None:
    """Check every record and annotation.

    Args:
        records: the data set.
        metadata: its ``thing_classes`` and ``keypoint_names`` are compared, where it has them.
        num_classes: K of the model; category ids must be in 0..K-1. Taken from ``thing_classes`` if it is ``None``.
        check_files: whether the images must be there.

    Raises:
        DatasetCheckError: naming image file and annotation id; the first ten problems and how many there are.
    """
    classes = getattr(metadata, "thing_classes", None)
    if classes is not None and num_classes is not None and len(classes) != num_classes:
        raise DatasetCheckError(f"the model has {num_classes} classes, the data set {len(classes)}: {_listed(classes)}")
    known = num_classes if num_classes is not None else (None if classes is None else len(classes))
    names = getattr(metadata, "keypoint_names", None)
    problems: list[str] = []
    files: list[str] = []
    for record in records:  # once: each pass over a serialized list unpickles everything
        problems += _record_problems(record, known, None if names is None else len(names))
        files += _files(record)
    if check_files:
        problems += [f"{name}: no such file" for name in missing_files(files)]
    if problems:
        shown = "\n  ".join(problems[:MAX_SHOWN])
        more = f"\n  ... and {len(problems) - MAX_SHOWN} more" if len(problems) > MAX_SHOWN else ""
        noun = "problem" if len(problems) == 1 else "problems"
        raise DatasetCheckError(f"{len(problems)} {noun} in the data set:\n  {shown}{more}")


def missing_files(files: Iterable[str]) -> Iterator[str]:
    """Go through the files that do not exist."""
    by_folder: dict[str, list[str]] = defaultdict(list)
    for file in files:
        by_folder[os.path.dirname(file)].append(file)
    for folder, inside in by_folder.items():
        listed = set(os.listdir(folder)) if len(inside) >= LISTED_FROM and os.path.isdir(folder) else set()
        # What the listing does not show is asked for by name, as other spellings and addresses may work too.
        yield from (f for f in inside if os.path.basename(f) not in listed and not PathManager.isfile(f))


def class_counts(records: Iterable[Record], num_classes: int) -> NDArray[np.int64]:
    """Count the annotations of each class, without crowds: (K,)."""
    ids = [a["category_id"] for r in records for a in r.get("annotations", ()) if not a.get("iscrowd", 0)]
    counts = np.bincount(np.asarray(ids, dtype=np.int64), minlength=num_classes)
    return counts[:num_classes]


def class_table(records: Iterable[Record], classes: Sequence[str], columns: int = 3) -> str:
    """Return the annotations of each class as a table for the log."""
    from tabulate import tabulate

    counts = class_counts(records, len(classes))
    cells = [cell for pair in zip(classes, counts.tolist(), strict=True) for cell in pair] + [
        "total",
        int(counts.sum()),
    ]
    width = 2 * min(columns, len(classes) + 1)
    rows = [cells[i : i + width] for i in range(0, len(cells), width)]
    return tabulate(rows, headers=["class", "count"] * (width // 2), tablefmt="simple")


def _files(record: Record) -> list[str]:
    return [record[key] for key in ("file_name", "sem_seg_file_name") if key in record]


def _record_problems(record: Record, num_classes: int | None, num_keypoints: int | None) -> Iterator[str]:
    for annotation in record.get("annotations", ()):
        for problem in _annotation_problems(annotation, record, num_classes, num_keypoints):
            yield f"{record.get('file_name')}: annotation {annotation.get('id', '(no id)')}: {problem}"


def _annotation_problems(
    annotation: Mapping[str, Any], record: Record, num_classes: int | None, num_keypoints: int | None
) -> Iterator[str]:
    category = annotation.get("category_id")
    if (
        not isinstance(category, (int, np.integer))
        or category < 0
        or (num_classes is not None and category >= num_classes)
    ):
        last = "" if num_classes is None else f" to {num_classes - 1}"
        yield f"category id {category!r} is not in 0{last}"
    yield from _box_problems(annotation, record)
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, Mapping):
        size = list(segmentation.get("size", ()))
        if size != [record.get("height", size[:1]), record.get("width", size[1:])]:
            yield f"its RLE is {size}, the image {record.get('height')} x {record.get('width')}"
    for polygon in segmentation or () if not isinstance(segmentation, Mapping) else ():
        if len(polygon) % 2 or len(polygon) < 6:
            yield f"a polygon of {len(polygon)} numbers; at least three points x, y are needed"
        elif not math.isfinite(sum(polygon)):
            yield "a polygon with numbers that are not finite"
    keypoints = annotation.get("keypoints")
    if keypoints and num_keypoints is not None and len(keypoints) != 3 * num_keypoints:
        yield f"{len(keypoints)} numbers for {num_keypoints} keypoints; x, y, visibility for each are needed"


def _box_problems(annotation: Mapping[str, Any], record: Record) -> Iterator[str]:
    """Refuse boxes that are none or lie outside; lines are left to the loaders and the mapper."""
    try:
        if annotation["bbox_mode"] == BoxMode.XYWHA_ABS:
            return
        x0, y0, x1, y1 = BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYXY_ABS)
    except (KeyError, TypeError, ValueError, NotImplementedError) as error:
        yield f"no box: {type(error).__name__}: {error}"
        return
    shown = [round(float(v), 2) for v in (x0, y0, x1, y1)]
    if not all(map(math.isfinite, shown)):
        yield f"box {shown} is not finite"
    elif x1 < x0 or y1 < y0:
        yield f"box {shown} (x0, y0, x1, y1) has a negative size"
    elif x1 <= 0 or y1 <= 0 or x0 >= record.get("width", math.inf) or y0 >= record.get("height", math.inf):
        size = f"{record.get('width')} wide and {record.get('height')} high"
        yield f"box {shown} lies outside of the image, which is {size}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(islice(names, 8)) + (", ..." if len(names) > 8 else "")
