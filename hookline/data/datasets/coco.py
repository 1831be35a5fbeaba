"""COCO JSON to records: instances as polygons or RLE, crowds, keypoints, category ids with gaps.

Source: https://cocodataset.org/#format-data
"""

import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pycocotools.mask as mask_util

from hookline.data.catalog import DatasetCatalog, MetadataCatalog, Record, nearest
from hookline.data.datasets.paths import join_root
from hookline.data.datasets.reading import AnnotationFileError, paused_gc, read_json
from hookline.structures import BoxMode

logger = logging.getLogger(__name__)


def load_coco_json(
    json_file: str | Path,
    image_root: str | Path,
    dataset_name: str | None = None,
    extra_annotation_keys: Sequence[str] | None = None,
) -> list[Record]:
    """Read a COCO file into records, in the order of the file's images; images without annotations are kept.

    Keypoints are moved by half a pixel: COCO counts pixels, Hookline's coordinates run from edge to edge, so the
    middle of the first pixel is (0.5, 0.5). Points that are not labelled (visibility 0) stay (0, 0, 0).

    Args:
        json_file: the annotations.
        image_root: the folder that the file names in it are relative to.
        dataset_name: fills this name's metadata with ``thing_classes`` and ``thing_dataset_id_to_contiguous_id``.
            Where the metadata has ``thing_classes`` already, the names must be the file's; their order then gives the
            class numbers. Without a name, the numbers follow the order of the file's category ids.
        extra_annotation_keys: further keys of an annotation to keep.

    Returns:
        Records with ``file_name, height, width, image_id, annotations``; an annotation has ``id, bbox`` (XYWH),
        ``bbox_mode, category_id`` (0 to K-1), ``iscrowd`` and, where the file has them, ``area, segmentation``
        (polygons, or RLE with compressed counts) and ``keypoints``.
        A file that is not there is a FileNotFoundError that says which variable sets the data root.

    Raises:
        AnnotationFileError: if the file is not such a file; names what is missing, unknown or double by its id.
    """
    start = time.perf_counter()
    content = read_json(json_file, "annotations" if dataset_name is None else f"annotations of {dataset_name!r}")
    try:
        with paused_gc():
            class_of = _class_numbers(_rows(content, "categories"), dataset_name)
            records = _records_of_images(_rows(content, "images"), image_root)
            rows = _rows(content, "annotations") if "annotations" in content else []  # test sets have images only
            _add_annotations(records, rows, class_of, extra_annotation_keys or ())
    except AnnotationFileError as error:
        raise AnnotationFileError(f"{json_file}: {error}") from None
    seconds = time.perf_counter() - start
    logger.info(f"Loaded {len(records)} images with {len(rows)} annotations from {json_file} in {seconds:.1f} s")
    return list(records.values())


def register_coco_instances(name: str, metadata: dict[str, Any], json_file: str | Path, image_root: str | Path) -> None:
    """Register a data set in COCO's format under a name.

    Args:
        name: how recipes refer to it.
        metadata: what to set in the metadata, such as ``keypoint_flip_map``; may be empty.
        json_file: the annotations.
        image_root: the folder that the file names in it are relative to.
    """
    DatasetCatalog.register(name, lambda: load_coco_json(json_file, image_root, name))
    entry = MetadataCatalog.get(name)
    entry.set(json_file=str(json_file), image_root=str(image_root), evaluator_type="coco", **metadata)


def _rows(content: Any, key: str) -> list[dict[str, Any]]:
    # Return one of the file's lists of objects.
    if not isinstance(content, dict):
        raise AnnotationFileError(f"not COCO: the top level is a {type(content).__name__}, an object was expected")
    if key not in content:
        hint = "; this looks like a VIA file" if "_via_img_metadata" in content or _looks_like_via(content) else ""
        raise AnnotationFileError(
            f"not COCO instances: no {key!r} at the top level, only {', '.join(list(content)[:8])}{hint}"
        )
    rows = content[key]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise AnnotationFileError(f"not COCO: {key!r} must be a list of objects")
    return rows


def _looks_like_via(content: dict[str, Any]) -> bool:
    return any(isinstance(v, dict) and "regions" in v for v in content.values())


def _class_numbers(categories: list[dict[str, Any]], dataset_name: str | None) -> dict[int, int]:
    # Map category ids, which may have gaps, to 0..K-1; fills the metadata if there is a name.
    if not categories:
        raise AnnotationFileError("'categories' is empty")
    for row in categories:
        if "id" not in row or "name" not in row:
            raise AnnotationFileError(f"category {row!r} lacks an 'id' or a 'name'")
    _refuse_double((row["id"] for row in categories), "category id")
    ordered = sorted(categories, key=lambda row: row["id"])
    names = [row["name"] for row in ordered]
    if dataset_name is None:
        return {row["id"]: number for number, row in enumerate(ordered)}
    entry = MetadataCatalog.get(dataset_name)
    declared = entry.get("thing_classes", names)
    if list(declared) != names:
        _check_declared(list(declared), names, dataset_name)
        class_of = {row["id"]: list(declared).index(row["name"]) for row in ordered}
    else:
        class_of = {row["id"]: number for number, row in enumerate(ordered)}
    entry.set(thing_classes=declared, thing_dataset_id_to_contiguous_id=class_of)
    return class_of


def _check_declared(declared: list[str], names: list[str], dataset_name: str) -> None:
    # Refuse class names in the metadata that are not the file's: shifted ids would go unnoticed.
    lacking = [n for n in names if n not in declared]
    unknown = [n for n in declared if n not in names]
    if lacking or unknown or len(set(names)) != len(names) or len(declared) != len(names):
        near = nearest(unknown[0], names) if unknown else ""
        raise AnnotationFileError(
            f"its {len(names)} categories are not the {len(declared)} thing_classes of {dataset_name!r} (metadata): "
            f"only in the file: {lacking[:5]}, only in the metadata: {unknown[:5]}{near}"
        )


def _records_of_images(images: list[dict[str, Any]], image_root: str | Path) -> dict[Any, Record]:
    # Make a record of every image, by image id.
    records: dict[Any, Record] = {}
    root = str(image_root)
    for row in images:
        try:
            image_id, name, height, width = row["id"], row["file_name"], row["height"], row["width"]
        except KeyError as error:
            raise AnnotationFileError(f"image {row.get('id', row)!r} has no {error}") from None
        if not (_positive(height) and _positive(width)):
            raise AnnotationFileError(f"image {image_id!r} ({name}): size {height!r} x {width!r} is not positive")
        records[image_id] = {
            "file_name": join_root(root, name),
            "height": int(height),
            "width": int(width),
            "image_id": image_id,
            "annotations": [],
        }
    if len(records) != len(images):
        _refuse_double((row["id"] for row in images), "image id")
    return records


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and value >= 1


def _refuse_double(ids: Iterable[Any], what: str) -> None:
    seen: set[Any] = set()
    for value in ids:
        if value in seen:
            raise AnnotationFileError(f"{what} {value!r} appears twice")
        seen.add(value)


def _add_annotations(
    records: dict[Any, Record], rows: list[dict[str, Any]], class_of: dict[int, int], extra_keys: Sequence[str]
) -> None:
    # Sort the annotations to their images in one pass. Boxes that are lines are left out: train2017 itself has one, and
    # nothing can be learnt from them.
    lines = []
    for row in rows:
        try:
            image_id = row["image_id"]
            bbox = row["bbox"]
            category = row["category_id"]
            annotation: dict[str, Any] = {
                "id": row["id"],
                "bbox": bbox,
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": class_of[category],
                "iscrowd": row.get("iscrowd", 0),
            }
            record = records[image_id]
        except (KeyError, TypeError):
            raise AnnotationFileError(_what_is_wrong(row, records, class_of)) from None
        if not isinstance(bbox, list) or len(bbox) != 4:
            raise AnnotationFileError(f"annotation {row['id']!r}: bbox {bbox!r} is not a list of x, y, width, height")
        if 0 in bbox[2:]:
            lines.append(row["id"])
            continue
        if "area" in row:
            annotation["area"] = row["area"]
        if row.get("segmentation"):
            annotation["segmentation"] = _segmentation(row, record)
        if row.get("keypoints"):
            annotation["keypoints"] = _keypoints(row)
        for key in extra_keys:
            if key in row:
                annotation[key] = row[key]
        record["annotations"].append(annotation)
    if lines:
        shown = ", ".join(map(repr, lines[:5])) + (", ..." if len(lines) > 5 else "")
        logger.warning(f"Left out {len(lines)} annotations whose box has no width or no height: {shown}")
    if len({row["id"] for row in rows}) != len(rows):
        _refuse_double((row["id"] for row in rows), "annotation id")


def _what_is_wrong(row: dict[str, Any], records: dict[Any, Record], class_of: dict[int, int]) -> str:
    lacking = [key for key in ("id", "image_id", "bbox", "category_id") if key not in row]
    if lacking:
        return f"annotation {row.get('id', row)!r} has no {', '.join(repr(k) for k in lacking)}"
    if row["category_id"] not in class_of:
        known = sorted(class_of)
        shown = f"{known[0]} to {known[-1]}" if len(known) > 20 else ", ".join(map(str, known))
        place = f"annotation {row['id']!r} of image {row['image_id']!r}"
        return f"{place}: no category {row['category_id']!r}; categories: {shown}"
    return f"annotation {row['id']!r} belongs to image {row['image_id']!r}, which 'images' does not have"


def _segmentation(row: dict[str, Any], record: Record) -> Any:
    # Return polygons as they are, RLE with compressed counts.
    segmentation = row["segmentation"]
    if isinstance(segmentation, dict):
        counts, size = segmentation.get("counts"), segmentation.get("size")
        if counts is None or size is None:
            raise AnnotationFileError(f"annotation {row['id']!r}: RLE without 'counts' or 'size'")
        if list(size) != [record["height"], record["width"]]:
            raise AnnotationFileError(
                f"annotation {row['id']!r}: RLE of size {size} in an image of {record['height']} x {record['width']}"
            )
        return mask_util.frPyObjects(segmentation, *size) if isinstance(counts, list) else segmentation
    if isinstance(segmentation, list) and all(isinstance(polygon, list) for polygon in segmentation):
        return segmentation
    raise AnnotationFileError(
        f"annotation {row['id']!r}: segmentation is neither polygons nor RLE: {str(segmentation)[:60]}"
    )


def _keypoints(row: dict[str, Any]) -> list[float]:
    points = row["keypoints"]
    if not isinstance(points, list) or len(points) % 3:
        raise AnnotationFileError(f"annotation {row['id']!r}: keypoints must be x, y, visibility for each point")
    moved: list[float] = []
    for x, y, visibility in zip(points[0::3], points[1::3], points[2::3], strict=True):
        moved += (x + 0.5, y + 0.5, visibility) if visibility > 0 else (0, 0, 0)
    return moved
