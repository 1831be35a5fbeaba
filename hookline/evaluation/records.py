"""Records of any data set as COCO ground truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hookline.evaluation.predictions import KEYPOINT_OFFSET
from hookline.structures import BoxMode, PolygonMasks, compress_rle, rle_areas

__all__ = ["records_to_coco"]

Record = Mapping[str, Any]


def records_to_coco(
    records: Iterable[Record], thing_classes: Sequence[str], category_ids: Mapping[int, int] | None = None
) -> dict[str, Any]:
    """Write records in COCO's form, as its evaluation reads them.

    Polygons stay as they are; the area is that of the polygons or the run-length code, else of the box.

    Args:
        records: of a data set, with contiguous ``category_id``.
        thing_classes: names by class number.
        category_ids: class number by the data set's own category id, where it has such; else class k gets id k + 1.

    Returns:
        ``images``, ``annotations``, ``categories``.

    Raises:
        ValueError: an annotation's ``category_id`` is no class number.
    """
    id_of = {k: k + 1 for k in range(len(thing_classes))}
    if category_ids is not None:
        id_of = {number: category for category, number in category_ids.items()}
    images, annotations = [], []
    for record in records:
        images.append({key: record[key] for key in ("file_name", "height", "width") if key in record})
        images[-1]["id"] = record["image_id"]
        for row in record.get("annotations", ()):
            if row["category_id"] not in id_of:
                where = f"annotation {row.get('id')!r} of image {record['image_id']!r} ({record.get('file_name')})"
                raise ValueError(f"{where}: category_id {row['category_id']!r}, but there are {len(id_of)} classes")
            annotations.append(_annotation(row, record["image_id"], id_of[row["category_id"]]))
    categories = [{"id": id_of[k], "name": name} for k, name in enumerate(thing_classes)]
    return {"images": images, "annotations": annotations, "categories": categories}


def _annotation(row: Mapping[str, Any], image_id: int | str, category_id: int) -> dict[str, Any]:
    box = [float(v) for v in BoxMode.convert(list(row["bbox"]), row["bbox_mode"], BoxMode.XYWH_ABS)]
    result: dict[str, Any] = {
        "id": row.get("id"),
        "image_id": image_id,
        "category_id": category_id,
        "bbox": box,
        "area": box[2] * box[3],
        "iscrowd": int(row.get("iscrowd", 0)),
    }
    segmentation = row.get("segmentation")
    if isinstance(segmentation, Mapping):
        result["segmentation"] = compress_rle(dict(segmentation))
        result["area"] = float(rle_areas([result["segmentation"]])[0])
    elif segmentation:
        result["segmentation"] = [[float(v) for v in polygon] for polygon in segmentation]
        result["area"] = float(PolygonMasks([result["segmentation"]]).area()[0])
    if row.get("keypoints"):
        # records give x and y in our coordinates, COCO numbers the pixels
        result["keypoints"] = [v if k % 3 == 2 else v - KEYPOINT_OFFSET for k, v in enumerate(row["keypoints"])]
        result["num_keypoints"] = sum(flag > 0 for flag in row["keypoints"][2::3])
    return result
