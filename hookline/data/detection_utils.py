"""Detectron2's module name for the functions around one record."""

from hookline.data.annotations import (
    annotations_to_instances,
    check_image_size,
    filter_empty_instances,
    gen_crop_transform_with_instance,
    transform_instance_annotations,
)
from hookline.data.errors import BadSampleError
from hookline.data.image_io import read_image
from hookline.data.keypoints import create_keypoint_hflip_indices, transform_keypoint_annotations

__all__ = [
    "BadSampleError",
    "annotations_to_instances",
    "check_image_size",
    "create_keypoint_hflip_indices",
    "filter_empty_instances",
    "gen_crop_transform_with_instance",
    "read_image",
    "transform_instance_annotations",
    "transform_keypoint_annotations",
]
