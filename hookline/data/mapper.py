"""From a record of a data set to a sample for the model.

The pixels are touched three times: decoded, resized, and laid out as (C, H, W). The objects of an image go through
geometry together, and stay polygons until a model looks at them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from fvcore.transforms.transform import Transform

from hookline.data.annotations import check_image_size, filter_empty_instances, make_instances
from hookline.data.errors import BadSampleError
from hookline.data.image_io import IMAGE_FORMATS, read_image, read_label_map
from hookline.data.segmentations import MASK_FORMATS
from hookline.data.transforms import AugInput, Augmentation, AugmentationList, image_to_chw, image_to_tensor

__all__ = ["DatasetMapper"]


class DatasetMapper:
    """Read a record's image, augment it, and make the target.

    All random draws use the global generators of numpy, ``random`` and torch, which the loader seeds for each sample.

    Args:
        is_train: make targets; otherwise the sample has the image only.
        augmentations: augmentations or fixed transforms, applied in order.
        image_format: ``"RGB"``, ``"BGR"`` or ``"L"``: what augmentations and model get.
        use_instance_mask: make ``gt_masks``.
        use_keypoint: make ``gt_keypoints``.
        instance_mask_format: ``"polygon"``: ``PolygonMasks``, or ``BitMasks`` for an image where an annotation has no
            polygons (but an RLE); ``"bitmask"``: ``BitMasks`` always.
        keypoint_hflip_indices: int (K,) from ``create_keypoint_hflip_indices``; needed where images are mirrored.
        recompute_boxes: take boxes from the masks after the transforms: tighter after crops and rotations.

    Raises:
        ValueError: unknown ``image_format`` or ``instance_mask_format``, or ``recompute_boxes`` without masks.
    """

    def __init__(
        self,
        is_train: bool,
        *,
        augmentations: Sequence[Augmentation | Transform],
        image_format: str,
        use_instance_mask: bool = False,
        use_keypoint: bool = False,
        instance_mask_format: str = "polygon",
        keypoint_hflip_indices: Sequence[int] | np.ndarray | None = None,
        recompute_boxes: bool = False,
    ) -> None:
        if image_format not in IMAGE_FORMATS:
            raise ValueError(f"image_format {image_format!r} is none of {', '.join(IMAGE_FORMATS)}")
        if instance_mask_format not in MASK_FORMATS:
            raise ValueError(f"instance_mask_format {instance_mask_format!r} is none of {', '.join(MASK_FORMATS)}")
        if recompute_boxes and not use_instance_mask:
            raise ValueError("recompute_boxes=True takes boxes from masks, so it needs use_instance_mask=True")
        self.is_train = is_train
        self.augmentations = AugmentationList(augmentations)
        self.image_format = image_format
        self.use_instance_mask = use_instance_mask
        self.use_keypoint = use_keypoint
        self.instance_mask_format = instance_mask_format
        self.keypoint_hflip_indices = None if keypoint_hflip_indices is None else np.asarray(keypoint_hflip_indices)
        self.recompute_boxes = recompute_boxes

    def __call__(self, dataset_dict: Mapping[str, Any]) -> dict[str, Any]:
        """Make a sample.

        Args:
            dataset_dict: a record in Detectron2's standard form; not changed.

        Returns:
            The record's own entries without annotations, and ``image`` uint8 (C, H, W); for training ``instances``
            where the record has annotations, and ``sem_seg`` int64 (H, W) where it names a label map.

        Raises:
            BadSampleError: image or annotation cannot be used; names the file and the annotation's id.
        """
        try:
            return self._map(dict(dataset_dict))
        except BadSampleError as error:
            error.file_name = error.file_name or dataset_dict.get("file_name")
            raise

    def _map(self, sample: dict[str, Any]) -> dict[str, Any]:
        image = read_image(sample["file_name"], self.image_format)
        check_image_size(sample, image)
        aug_input = AugInput(image, sem_seg=self._read_label_map(sample))
        transforms = self.augmentations(aug_input)
        sample["image"] = image_to_chw(aug_input.image)
        if aug_input.sem_seg is not None:
            sample["sem_seg"] = image_to_tensor(aug_input.sem_seg).to(torch.int64)
        annotations = sample.pop("annotations", None)
        if self.is_train and annotations is not None:
            original_size = sample["height"], sample["width"]
            sample["instances"] = self._instances(annotations, transforms, original_size, aug_input.image.shape[:2])
        return sample

    def _read_label_map(self, sample: dict[str, Any]) -> np.ndarray | None:
        """Read the label map of a training record; evaluation compares with the file itself.

        Raises:
            BadSampleError: it cannot be read, or has another size than the image.
        """
        name = sample.pop("sem_seg_file_name", None) if self.is_train else None
        if name is None:
            return None
        labels = read_label_map(name)
        if labels.shape != (sample["height"], sample["width"]):
            raise BadSampleError(
                f"the label map has {labels.shape} pixels (height, width), but {sample['file_name']} has "
                f"{(sample['height'], sample['width'])}",
                name,
            )
        return labels

    def _instances(
        self,
        annotations: Sequence[Mapping[str, Any]],
        transforms: Transform,
        original_size: tuple[int, int],
        image_size: tuple[int, int],
    ) -> Any:
        instances = make_instances(
            [annotation for annotation in annotations if not annotation.get("iscrowd", 0)],
            transforms,
            original_size,
            image_size,
            mask_format=self.instance_mask_format if self.use_instance_mask else None,
            use_keypoint=self.use_keypoint,
            keypoint_hflip_indices=self.keypoint_hflip_indices,
        )
        if self.recompute_boxes:
            instances.set("gt_boxes", instances.get("gt_masks").get_bounding_boxes())
        return filter_empty_instances(instances)

    def __repr__(self) -> str:
        return (
            f"DatasetMapper(is_train={self.is_train}, augmentations={self.augmentations}, "
            f"image_format={self.image_format!r}, use_instance_mask={self.use_instance_mask})"
        )
