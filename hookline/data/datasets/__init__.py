"""Data set formats, and the data sets that are known by name."""

from hookline.data.datasets.builtin import register_builtin
from hookline.data.datasets.coco import load_coco_json, register_coco_instances
from hookline.data.datasets.paths import datasets_root
from hookline.data.datasets.reading import AnnotationFileError
from hookline.data.datasets.to_coco import convert_to_coco_dict
from hookline.data.datasets.via import load_via_json, register_via_instances

__all__ = [
    "AnnotationFileError",
    "convert_to_coco_dict",
    "datasets_root",
    "load_coco_json",
    "load_via_json",
    "register_coco_instances",
    "register_via_instances",
]

register_builtin()
