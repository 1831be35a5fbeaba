"""Records back to COCO JSON: for ``hookline convert`` and for evaluating data sets that came in another format."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pycocotools.mask as mask_util

from hookline.data.catalog import Metadata, Record
from hookline.structures import BoxMode


def convert_to_coco_dict(
    records: Iterable[Record], metadata: Metadata, *, image_root: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Write records in COCO's form; loading the result gives the records again.

    Args:
        records: the data set.
        metadata: has ``thing_classes``, and ``thing_dataset_id_to_contiguous_id`` where the ids have gaps.
        image_root: file names become relative to this folder; left as they are without it.

    Returns:
        ``info, images, annotations, categories`` of plain values, ready for ``json.dump``. Annotation ids are kept
        where all records have different ones, else counted from 1.
    """
    id_of = _category_ids(metadata)
    images, annotations = [], []
    for record in records:
        images.append(_image(record, image_root))
        for annotation in record.get("annotations", ()):
            annotations.append(_annotation(annotation, record, id_of))
    ids = [a["id"] for a in annotations]
    if None in ids or len(set(ids)) != len(ids):
        for number, annotation in enumerate(annotations, 1):
            annotation["id"] = number
    categories = [{"id": id_of[k], "name": name} for k, name in enumerate(metadata.thing_classes)]
    if metadata.get("keypoint_names"):
        for category in categories:
            category["keypoints"] = list(metadata.keypoint_names)
    info = {"description": f"Data set {metadata.name!r}, converted by Hookline"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def _category_ids(metadata: Metadata) -> dict[int, int]:
    """Map class numbers to category ids: the ones it had, or counted from 1."""
    ids = metadata.get("thing_dataset_id_to_contiguous_id")
    if ids is not None:
        return {number: category for category, number in ids.items()}
    return {number: number + 1 for number in range(len(metadata.thing_classes))}


def _image(record: Record, image_root: str | os.PathLike[str] | None) -> dict[str, Any]:
    name = record["file_name"]
    if image_root is not None and "://" not in name:
        name = os.path.relpath(name, image_root)
    return {"id": record["image_id"], "file_name": name, "height": record["height"], "width": record["width"]}


def _annotation(annotation: Mapping[str, Any], record: Record, id_of: dict[int, int]) -> dict[str, Any]:
    box = BoxMode.convert(list(annotation["bbox"]), annotation["bbox_mode"], BoxMode.XYWH_ABS)
    result = {
        "id": annotation.get("id"),
        "image_id": record["image_id"],
        "category_id": id_of[annotation["category_id"]],
        "bbox": [float(v) for v in box],
        "area": annotation.get("area", _area(annotation, box)),
        "iscrowd": int(annotation.get("iscrowd", 0)),
    }
    segmentation = annotation.get("segmentation")
    if segmentation is not None:
        result["segmentation"] = _plain_rle(segmentation) if isinstance(segmentation, Mapping) else segmentation
    if annotation.get("keypoints"):
        result["keypoints"] = _keypoints(annotation["keypoints"])
        result["num_keypoints"] = sum(v > 0 for v in annotation["keypoints"][2::3])
    return result


def _area(annotation: Mapping[str, Any], box: Sequence[float]) -> float:
    """Area in square pixels: of the mask where there is one, else of the box."""
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, Mapping):
        return float(mask_util.area(segmentation))
    if segmentation:
        return sum(polygon_area(polygon) for polygon in segmentation)
    return float(box[2] * box[3])


def polygon_area(polygon: Sequence[float]) -> float:
    """Area of a flat polygon x0, y0, x1, y1, ... by the shoelace formula, in square pixels."""
    xs, ys = polygon[0::2], polygon[1::2]
    twice = sum(x0 * y1 - x1 * y0 for x0, y0, x1, y1 in zip(xs, ys, [*xs[1:], xs[0]], [*ys[1:], ys[0]], strict=True))
    return abs(twice) / 2


def _plain_rle(rle: Mapping[str, Any]) -> dict[str, Any]:
    counts = rle["counts"]
    return {"size": list(rle["size"]), "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def _keypoints(points: Sequence[float]) -> list[float]:
    """Undo the half pixel that reading COCO's keypoints adds."""
    plain: list[float] = []
    for x, y, visibility in zip(points[0::3], points[1::3], points[2::3], strict=True):
        plain += (x - 0.5, y - 0.5, visibility) if visibility > 0 else (0, 0, 0)
    return plain
