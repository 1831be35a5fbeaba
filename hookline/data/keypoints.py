"""Keypoints of annotations under geometry; mirroring also swaps left and right.

Axes: N annotations, K keypoints. A keypoint is (x, y, visibility): 0 not labelled, 1 hidden, 2 visible.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from fvcore.transforms.transform import HFlipTransform, Transform, TransformList

from hookline.data.catalog import Metadata, MetadataCatalog
from hookline.data.errors import BadSampleError
from hookline.data.segmentations import annotation_name

__all__ = [
    "create_keypoint_hflip_indices",
    "keypoint_hflip_indices",
    "keypoints_array",
    "transform_keypoint_annotations",
]


def keypoints_array(annotations: Sequence[Mapping[str, Any]], num_keypoints: int = 0) -> np.ndarray:
    """Collect the keypoints of annotations.

    Args:
        annotations: each with ``keypoints``, flat [x, y, visibility] * K or (K, 3).
        num_keypoints: K of the result where there are no annotations.

    Returns:
        float64 (N, K, 3).

    Raises:
        BadSampleError: an annotation has none, or another number than the first.
    """
    if not annotations:
        return np.zeros((0, num_keypoints, 3))
    arrays: list[np.ndarray] = []
    for position, annotation in enumerate(annotations):
        name = annotation_name(annotation, position)
        if "keypoints" not in annotation:
            raise BadSampleError("it has no keypoints, but keypoints were asked for", annotation_id=name)
        array = np.asarray(annotation["keypoints"], dtype=np.float64).reshape(-1)
        expected = len(arrays[0]) if arrays else len(array)
        if len(array) % 3 or len(array) != expected:
            raise BadSampleError(
                f"its keypoints are {len(array)} numbers, expected {expected} and a multiple of 3 (x, y, visibility)",
                annotation_id=name,
            )
        arrays.append(array)
    return np.stack(arrays).reshape(len(arrays), -1, 3)


def transform_keypoint_annotations(
    keypoints: Any,
    transforms: Transform,
    image_size: tuple[int, int],
    keypoint_hflip_indices: np.ndarray | None = None,
) -> np.ndarray:
    """Move keypoints; those that leave the image become unlabelled, those that are unlabelled become (0, 0, 0).

    Args:
        keypoints: (K, 3), (N, K, 3), or flat for one annotation.
        transforms: what was applied to the image.
        image_size: (height, width) after ``transforms``.
        keypoint_hflip_indices: int (K,): which keypoint takes each one's place in a mirrored image.

    Returns:
        float64 of the same shape, (K, 3) for flat ones.

    Raises:
        ValueError: the image was mirrored, and ``keypoint_hflip_indices`` is missing or not of K entries.
    """
    points = np.array(keypoints, dtype=np.float64)
    points = points.reshape(-1, 3) if points.ndim == 1 else points
    height, width = image_size
    moved = np.asarray(transforms.apply_coords(points[..., :2].reshape(-1, 2))).reshape(*points.shape[:-1], 2)
    inside = ((moved >= 0) & (moved <= (width, height))).all(axis=-1)
    points[..., :2] = moved
    points[..., 2] *= inside
    if _mirrors(transforms):
        points = _swap(points, keypoint_hflip_indices)
    points[points[..., 2] == 0] = 0
    return points


def _mirrors(transforms: Transform) -> bool:
    """Tell whether left and right are swapped in the end."""
    steps = transforms.transforms if isinstance(transforms, TransformList) else [transforms]
    return sum(isinstance(step, HFlipTransform) for step in steps) % 2 == 1


def _swap(points: np.ndarray, indices: np.ndarray | None) -> np.ndarray:
    if indices is None:
        raise ValueError(
            "the image was mirrored, but keypoint_hflip_indices is missing: give the mapper "
            "create_keypoint_hflip_indices(<data set>), or leave RandomFlip out"
        )
    if len(indices) != points.shape[-2]:
        raise ValueError(f"keypoint_hflip_indices has {len(indices)} entries for {points.shape[-2]} keypoints")
    return points[..., np.asarray(indices), :]


def keypoint_hflip_indices(names: Sequence[str], flip_map: Iterable[tuple[str, str]]) -> np.ndarray:
    """Say which keypoint takes each one's place when an image is mirrored.

    Args:
        names: of the K keypoints.
        flip_map: pairs of names that swap, such as ("left_eye", "right_eye"); the others stay.

    Returns:
        int64 (K,).

    Raises:
        ValueError: a pair holds a name that is not in ``names``.
    """
    partner: dict[str, str] = {}
    for left, right in flip_map:
        partner.update({left: right, right: left})
    unknown = sorted(set(partner) - set(names))
    if unknown:
        raise ValueError(f"keypoint_flip_map names {unknown[0]!r}, which is none of {', '.join(names)}")
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[partner.get(name, name)] for name in names], dtype=np.int64)


def create_keypoint_hflip_indices(dataset_names: str | Metadata | Sequence[str | Metadata]) -> np.ndarray:
    """Say which keypoint takes each one's place when images of data sets are mirrored.

    Args:
        dataset_names: names in the catalog, or metadata with ``keypoint_names`` and ``keypoint_flip_map``.

    Returns:
        int64 (K,).

    Raises:
        ValueError: none given, or the data sets have different keypoints.
    """
    several = [dataset_names] if isinstance(dataset_names, (str, Metadata)) else list(dataset_names)
    metadata = [MetadataCatalog.get(one) if isinstance(one, str) else one for one in several]
    results = [keypoint_hflip_indices(one.keypoint_names, one.keypoint_flip_map) for one in metadata]
    if not results:
        raise ValueError("create_keypoint_hflip_indices needs at least one data set")
    for one, result in zip(metadata, results, strict=True):
        if list(one.keypoint_names) != list(metadata[0].keypoint_names) or (result != results[0]).any():
            raise ValueError(f"data sets {metadata[0].name!r} and {one.name!r} have different keypoints")
    return results[0]
