"""The pure functions around one record: boxes, masks and keypoints after geometry, as ``Instances``.

Detectron2's names; ``hookline.data.detection_utils`` offers them under its module's name. Boxes are absolute XYXY
pixels, sizes (height, width). Axes: N annotations, K keypoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import Transform, TransformList

from hookline.data.annotation_checks import check_boxes, check_segmentations
from hookline.data.errors import BadSampleError
from hookline.data.keypoints import keypoints_array, transform_keypoint_annotations
from hookline.data.segmentations import Segmentations, annotation_name
from hookline.data.transforms import CropTransform
from hookline.structures import Boxes, BoxMode, Instances, Keypoints

__all__ = [
    "annotation_boxes",
    "annotations_to_instances",
    "check_image_size",
    "filter_empty_instances",
    "gen_crop_transform_with_instance",
    "make_instances",
    "transform_instance_annotations",
]

Annotation = Mapping[str, Any]


def make_instances(
    annotations: Sequence[Annotation],
    transforms: Transform | Sequence[Transform],
    original_size: tuple[int, int],
    image_size: tuple[int, int],
    *,
    mask_format: str | None = None,
    use_keypoint: bool = False,
    keypoint_hflip_indices: np.ndarray | None = None,
) -> Instances:
    """Check the annotations of an image, apply its transforms to all of them at once, and make the training target.

    The annotations are not changed. Fields are there for images without annotations too.

    Args:
        annotations: in Detectron2's standard form, crowds left out.
        transforms: what was applied to the image.
        original_size: (height, width) that the annotations refer to.
        image_size: (height, width) after ``transforms``.
        mask_format: ``"polygon"`` or ``"bitmask"`` for ``gt_masks``; None for none.
        use_keypoint: make ``gt_keypoints``.
        keypoint_hflip_indices: see :func:`transform_keypoint_annotations`.

    Returns:
        ``gt_boxes`` (clipped to the image), ``gt_classes``, and ``gt_masks`` and ``gt_keypoints`` where asked for.

    Raises:
        BadSampleError: an annotation lies outside the image, is degenerate, or lacks what was asked for.
    """
    applied = _as_transform(transforms)
    boxes = annotation_boxes(annotations)
    check_boxes(annotations, boxes, original_size)
    instances = Instances(image_size)
    instances.set("gt_boxes", Boxes(_float_tensor(_moved_boxes(boxes, applied, image_size))))
    instances.set("gt_classes", torch.tensor([a["category_id"] for a in annotations], dtype=torch.int64))
    if mask_format is not None:
        segmentations = Segmentations.from_annotations(annotations, original_size)
        check_segmentations(annotations, segmentations, original_size)
        instances.set("gt_masks", segmentations.transformed(applied).to_masks(image_size, mask_format))
    if use_keypoint:
        num_keypoints = 0 if keypoint_hflip_indices is None else len(keypoint_hflip_indices)
        points = keypoints_array(annotations, num_keypoints)
        moved = transform_keypoint_annotations(points, applied, image_size, keypoint_hflip_indices)
        instances.set("gt_keypoints", Keypoints(_float_tensor(moved)))
    return instances


def annotation_boxes(annotations: Sequence[Annotation]) -> np.ndarray:
    """Return the boxes of annotations, float64 (N, 4) absolute XYXY.

    Args:
        annotations: with ``bbox`` and ``bbox_mode``.

    Raises:
        BadSampleError: an annotation has no box, or one that is not of its mode.
    """
    if not annotations:
        return np.zeros((0, 4))
    try:
        (mode,) = {annotation["bbox_mode"] for annotation in annotations}
        boxes = np.array([annotation["bbox"] for annotation in annotations], dtype=np.float64)
        return BoxMode.convert(boxes, mode, BoxMode.XYXY_ABS)
    except (KeyError, TypeError, ValueError, NotImplementedError):
        # several modes, or one of the boxes is wrong: going one by one finds which
        return np.array([_box(annotation, position) for position, annotation in enumerate(annotations)])


def transform_instance_annotations(
    annotation: Annotation,
    transforms: Transform | Sequence[Transform],
    image_size: tuple[int, int],
    *,
    keypoint_hflip_indices: np.ndarray | None = None,
) -> dict[str, Any]:
    """Apply transforms to the box, segmentation and keypoints of one annotation.

    For mappers written for Detectron2; :func:`make_instances` does all annotations of an image in less time.

    Args:
        annotation: in Detectron2's standard form; not changed.
        transforms: what was applied to the image.
        image_size: (height, width) after ``transforms``.
        keypoint_hflip_indices: see :func:`transform_keypoint_annotations`.

    Returns:
        A new annotation: ``bbox`` float64 (4,) clipped to the image, ``bbox_mode`` XYXY_ABS, ``segmentation`` a list of
        flat polygons or a bool bitmap (H, W), ``keypoints`` float64 (K, 3).

    Raises:
        BadSampleError: the annotation cannot be read.
    """
    applied = _as_transform(transforms)
    result = dict(annotation)
    result["bbox"] = _moved_boxes(annotation_boxes([annotation]), applied, image_size)[0]
    result["bbox_mode"] = BoxMode.XYXY_ABS
    if "segmentation" in annotation:
        moved = Segmentations.from_annotations([annotation]).transformed(applied)
        result["segmentation"] = moved.bitmaps[0] if moved.bitmaps else moved.polygons.to_lists()[0]
    if "keypoints" in annotation:
        points = keypoints_array([annotation])
        result["keypoints"] = transform_keypoint_annotations(points, applied, image_size, keypoint_hflip_indices)[0]
    return result


def annotations_to_instances(
    annos: Sequence[Annotation], image_size: tuple[int, int], mask_format: str = "polygon"
) -> Instances:
    """Make the training target of annotations that are already in the image's coordinates.

    Args:
        annos: as :func:`transform_instance_annotations` returns them.
        image_size: (height, width).
        mask_format: ``"polygon"`` or ``"bitmask"``.

    Returns:
        ``gt_boxes``, ``gt_classes``, and ``gt_masks`` and ``gt_keypoints`` where the first annotation has them.

    Raises:
        BadSampleError: an annotation cannot be read, or lacks what the first one has.
        ValueError: unknown ``mask_format``.
    """
    instances = Instances(image_size)
    instances.set("gt_boxes", Boxes(_float_tensor(annotation_boxes(annos))))
    instances.set("gt_classes", torch.tensor([int(a["category_id"]) for a in annos], dtype=torch.int64))
    if annos and "segmentation" in annos[0]:
        # a crop may have left an annotation without polygons, which is fine here and filtered later
        segmentations = Segmentations.from_annotations(annos, image_size, allow_empty=True)
        instances.set("gt_masks", segmentations.to_masks(image_size, mask_format))
    if annos and "keypoints" in annos[0]:
        instances.set("gt_keypoints", Keypoints(_float_tensor(keypoints_array(annos))))
    return instances


def filter_empty_instances(
    instances: Instances,
    by_box: bool = True,
    by_mask: bool = True,
    box_threshold: float = 1e-5,
    return_mask: bool = False,
) -> Instances | tuple[Instances, torch.Tensor]:
    """Drop objects of which the transforms left nothing.

    Args:
        instances: with ``gt_boxes``, perhaps ``gt_masks``.
        by_box: drop those whose box has a side of at most ``box_threshold``.
        by_mask: drop those whose mask is empty.
        box_threshold: in pixels.
        return_mask: also return which were kept.

    Returns:
        The rest, and bool (N,) where asked for.

    Raises:
        ValueError: neither ``by_box`` nor ``by_mask``.
    """
    if not (by_box or by_mask):
        raise ValueError("filter_empty_instances with by_box=False and by_mask=False has nothing to filter by")
    kept = torch.ones(len(instances), dtype=torch.bool)
    if by_box:
        kept &= instances.get("gt_boxes").nonempty(threshold=box_threshold)
    if by_mask and instances.has("gt_masks"):
        kept &= instances.get("gt_masks").nonempty()
    rest = instances if bool(kept.all()) else instances[kept]
    return (rest, kept) if return_mask else rest


def check_image_size(dataset_dict: dict[str, Any], image: np.ndarray) -> None:
    """Compare an image with what its record says of it; fill ``height`` and ``width`` in where the record has none.

    Args:
        dataset_dict: the record, changed in place.
        image: (H, W[, C]) as read.

    Raises:
        BadSampleError: the sizes differ: the annotations belong to another image, or to the image as it lies in the
            file, without its EXIF orientation.
    """
    height, width = image.shape[:2]
    expected = dataset_dict.setdefault("height", height), dataset_dict.setdefault("width", width)
    if expected != (height, width):
        raise BadSampleError(
            f"the image has {(height, width)} pixels (height, width), but its record says {expected}; "
            "was it changed, or annotated without regard to its EXIF orientation?",
            dataset_dict.get("file_name"),
        )


def gen_crop_transform_with_instance(
    crop_size: Sequence[int], image_size: tuple[int, int], instance: Annotation
) -> CropTransform:
    """Draw a window that contains the centre of an annotation's box.

    Args:
        crop_size: (height, width) of the window; at most the image's is used.
        image_size: (height, width) of the image.
        instance: an annotation with ``bbox`` and ``bbox_mode``.

    Raises:
        BadSampleError: the box's centre lies outside the image.
    """
    box = annotation_boxes([instance])[0]
    center = (box[:2] + box[2:])[::-1] / 2
    image, crop = np.array(image_size), np.minimum(crop_size, image_size)
    if not ((center >= 0) & (center <= image)).all():
        raise BadSampleError(
            f"the centre of its box {instance['bbox']} lies outside the image of {tuple(image_size)} pixels "
            "(height, width)",
            annotation_id=annotation_name(instance, 0),
        )
    low = np.maximum(np.ceil(center - crop), 0).astype(int)
    high = np.maximum(np.minimum(np.floor(center), image - crop).astype(int), low)
    y0, x0 = (int(np.random.randint(start, end + 1)) for start, end in zip(low, high, strict=True))
    return CropTransform(x0, y0, int(crop[1]), int(crop[0]), image_size[1], image_size[0])


def _as_transform(transforms: Transform | Sequence[Transform]) -> Transform:
    return transforms if isinstance(transforms, Transform) else TransformList(list(transforms))


def _box(annotation: Annotation, position: int) -> np.ndarray:
    name = annotation_name(annotation, position)
    for key in ("bbox", "bbox_mode"):
        if key not in annotation:
            raise BadSampleError(f"it has no {key}", annotation_id=name)
    box, mode = annotation["bbox"], annotation["bbox_mode"]
    try:
        return BoxMode.convert(np.array(box, dtype=np.float64).reshape(1, -1), mode, BoxMode.XYXY_ABS).reshape(4)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise BadSampleError(f"its box {box} in mode {mode!r} cannot be read: {error}", annotation_id=name) from error


def _moved_boxes(boxes: np.ndarray, transforms: Transform, image_size: tuple[int, int]) -> np.ndarray:
    """Transform boxes (N, 4) and clip them to the image."""
    if not len(boxes):
        return boxes
    height, width = image_size
    return np.asarray(transforms.apply_box(boxes)).clip(0, (width, height, width, height))


def _float_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
