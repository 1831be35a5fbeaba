"""The ground truth of a COCO evaluation: the original file where there is one, else made from the records."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hookline.evaluation.predictions import ImageId
from hookline.evaluation.records import records_to_coco
from hookline.io import PathManager

__all__ = ["GroundTruth", "load_ground_truth"]

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]


@dataclass
class GroundTruth:
    """Annotated images in COCO's form, with ids that every back end understands.

    Attributes:
        images: COCO's, with ``id`` a whole number.
        annotations: COCO's, with ``image_id`` of these images; numbered from 1 in the order of the file, because
            pycocotools takes a match with annotation 0 for none.
        categories: COCO's, untouched.
        number_of: the ``id`` in ``images`` by the image's own id in its data set.
        category_ids: the category's id by class number.
        class_names: by class number.
        source: where it came from, for messages.
    """

    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    number_of: dict[ImageId, int]
    category_ids: list[int]
    class_names: list[str]
    source: str
    cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def annotations_for(self, task: str) -> list[dict[str, Any]]:
        """Return the annotations with what a task needs and nothing that would only be copied.

        Args:
            task: ``bbox``, ``segm`` or ``keypoints``.

        Raises:
            ValueError: an annotation has no mask where the task asks for masks, or none has keypoints.
        """
        if task == "bbox":
            return [{k: row[k] for k in _ALWAYS} for row in self.annotations]
        if task == "segm":
            for row in self.annotations:
                if not row.get("segmentation"):
                    where = f"annotation {row['own_id']!r} of image {row['image_id']!r}"
                    raise ValueError(f"{self.source}: {where} has no segmentation, which the task 'segm' needs")
            return [{k: row[k] for k in (*_ALWAYS, "segmentation")} for row in self.annotations]
        lengths = {len(row["keypoints"]) for row in self.annotations if row.get("keypoints")}
        if len(lengths) != 1:
            found = "none" if not lengths else f"different numbers of them: {sorted(n // 3 for n in lengths)}"
            raise ValueError(f"{self.source}: the task 'keypoints' needs annotations with keypoints, there are {found}")
        return [_with_keypoints(row, lengths.copy().pop()) for row in self.annotations]

    def has(self, task: str) -> bool:
        """Tell whether any annotation has what the task is about."""
        name = {"segm": "segmentation", "keypoints": "keypoints"}.get(task)
        return name is None or any(row.get(name) for row in self.annotations)


_ALWAYS = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")


def _with_keypoints(row: dict[str, Any], length: int) -> dict[str, Any]:
    """An annotation without keypoints takes part as one that none of them is labelled in, which COCO ignores."""
    keypoints = row.get("keypoints") or [0] * length
    visible = sum(flag > 0 for flag in keypoints[2::3])
    return {
        **{k: row[k] for k in _ALWAYS},
        "keypoints": keypoints,
        "num_keypoints": row.get("num_keypoints", visible) if row.get("keypoints") else 0,
    }


def load_ground_truth(dataset: str | os.PathLike[str] | Sequence[Record], metadata: Any = None) -> GroundTruth:
    """Find the ground truth of a data set.

    Records whose metadata names their COCO file (``json_file``) are evaluated on that file's annotations, crowds and
    areas included, restricted to the images of the records. Records of another origin become COCO annotations.

    Args:
        dataset: the path of a COCO JSON file, or records.
        metadata: of the data set; its ``thing_classes``, ``thing_dataset_id_to_contiguous_id`` and ``json_file`` are
            looked at, as attributes or keys.

    Raises:
        FileNotFoundError: there is no file of that path.
        ValueError: records without class names, or a file that is not COCO's.
    """
    mapping = _entry(metadata, "thing_dataset_id_to_contiguous_id")
    names = _entry(metadata, "thing_classes")
    if isinstance(dataset, (str, os.PathLike)):
        path = os.fspath(dataset)
        if not PathManager.isfile(path):
            raise FileNotFoundError(
                f"COCOEvaluator: no file {path!r}. It takes the path of a COCO JSON file or the records of a data set; "
                "the records of a registered name come from get_detection_dataset_dicts(names=...)"
            )
        return _from_coco(_read_coco(path), path, mapping, names, None)
    wanted = [record["image_id"] for record in dataset]
    json_file = _entry(metadata, "json_file")
    content = _read_json(json_file) if json_file and PathManager.isfile(json_file) else None
    # it may be a file of another format, such as VIA's, or that of one of several data sets
    if content is not None and not _missing_lists(content) and set(wanted) <= {row["id"] for row in content["images"]}:
        return _from_coco(content, json_file, mapping, names, wanted)
    if names is None:
        raise ValueError("COCOEvaluator: records need metadata with thing_classes, the names of their classes")
    made = records_to_coco(dataset, names, mapping)
    logger.info(f"Ground truth made from {len(wanted)} records with {len(made['annotations'])} annotations")
    return _from_coco(made, "the records", {row["id"]: k for k, row in enumerate(made["categories"])}, names, None)


def _entry(metadata: Any, key: str) -> Any:
    return metadata.get(key) if isinstance(metadata, Mapping) else getattr(metadata, key, None)


def _read_coco(path: str) -> dict[str, Any]:
    content = _read_json(path)
    if missing := _missing_lists(content):
        raise ValueError(f"{path} is no COCO annotation file: it has no list {', '.join(map(repr, missing))}")
    return content


def _read_json(path: str) -> Any:
    with PathManager.open(path, "r") as file:
        try:
            return json.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is no JSON file: {error}") from error


def _missing_lists(content: Any) -> list[str]:
    lists = ("images", "annotations", "categories")
    return [k for k in lists if not (isinstance(content, dict) and isinstance(content.get(k), list))]


def _from_coco(
    content: dict[str, Any],
    source: str,
    mapping: Mapping[int, int] | None,
    names: Sequence[str] | None,
    wanted: Sequence[ImageId] | None,
) -> GroundTruth:
    category_ids = _category_ids(content["categories"], mapping, source)
    own_names = {row["id"]: str(row.get("name", row["id"])) for row in content["categories"]}
    ids = set(wanted) if wanted is not None else {image["id"] for image in content["images"]}
    images = [image for image in content["images"] if image["id"] in ids]
    number_of = _number_images([image["id"] for image in images])
    annotations = [
        _annotation(row, number, number_of, source)
        for number, row in enumerate((row for row in content["annotations"] if row.get("image_id") in ids), 1)
    ]
    return GroundTruth(
        images=[{**image, "id": number_of[image["id"]]} for image in images],
        annotations=annotations,
        categories=content["categories"],
        number_of=number_of,
        category_ids=category_ids,
        class_names=list(names) if names is not None else [own_names[k] for k in category_ids],
        source=source,
    )


def _category_ids(categories: list[dict[str, Any]], mapping: Mapping[int, int] | None, source: str) -> list[int]:
    # by class number: the metadata's mapping, else in the order of the ids
    known = sorted(row["id"] for row in categories)
    if mapping is None:
        return known
    by_number = {number: category for category, number in mapping.items()}
    unknown = sorted(set(mapping) - set(known))
    if unknown or sorted(by_number) != list(range(len(by_number))):
        raise ValueError(
            f"thing_dataset_id_to_contiguous_id does not fit {source}: "
            + (f"it has no category {unknown[0]!r}" if unknown else "the class numbers are not 0, 1, 2 ...")
        )
    return [by_number[number] for number in range(len(by_number))]


def _number_images(ids: list[ImageId]) -> dict[ImageId, int]:
    """Keep ids that are whole numbers from 0 on; number others in their order, the order in which COCO evaluates."""
    # results travel as rows of float64, which hold whole numbers up to 2**53
    if all(isinstance(k, int) and not isinstance(k, bool) and 0 <= k < 2**53 for k in ids):
        return {k: k for k in ids if isinstance(k, int)}
    return {k: number for number, k in enumerate(sorted(ids, key=lambda k: (isinstance(k, str), k)), 1)}


def _annotation(row: dict[str, Any], number: int, number_of: Mapping[ImageId, int], source: str) -> dict[str, Any]:
    missing = [key for key in ("category_id", "bbox") if key not in row]
    if missing:
        where = f"{source}: annotation {row.get('id')!r} of image {row['image_id']!r}"
        raise ValueError(f"{where} has no {missing[0]!r}")
    return {
        **row,
        "id": number,
        "own_id": row.get("id"),
        "image_id": number_of[row["image_id"]],
        "iscrowd": int(row.get("iscrowd", 0)),
        "area": row["area"] if "area" in row else row["bbox"][2] * row["bbox"][3],
    }
