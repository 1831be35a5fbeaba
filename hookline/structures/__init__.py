"""The nouns: boxes, instances, masks, keypoints, image lists.

Boxes are absolute XYXY pixels, sizes (height, width). Nothing here imports torchvision before masks are cropped.
"""

from hookline.structures.bit_masks import BitMasks
from hookline.structures.box_mode import BoxMode
from hookline.structures.boxes import Boxes
from hookline.structures.image_list import ImageList
from hookline.structures.instances import Instances
from hookline.structures.keypoints import Keypoints, heatmaps_to_keypoints
from hookline.structures.overlap import (
    matched_pairwise_iou,
    pairwise_intersection,
    pairwise_ioa,
    pairwise_iou,
    pairwise_point_box_distance,
)
from hookline.structures.paste import paste_masks_in_image
from hookline.structures.polygon_masks import PolygonMasks
from hookline.structures.rasterize import (
    polygons_to_bitmask,
    rasterize_polygons,
    rasterize_polygons_within_box,
    rasterize_polygons_within_boxes,
)
from hookline.structures.rle import (
    Rle,
    compress_rle,
    decode_rles,
    encode_masks,
    encode_polygons,
    is_column_major,
    merge_rles,
    rle_areas,
    rle_boxes,
)
from hookline.structures.roi_masks import ROIMasks

__all__ = [
    "BitMasks",
    "BoxMode",
    "Boxes",
    "ImageList",
    "Instances",
    "Keypoints",
    "PolygonMasks",
    "ROIMasks",
    "Rle",
    "compress_rle",
    "decode_rles",
    "encode_masks",
    "encode_polygons",
    "heatmaps_to_keypoints",
    "is_column_major",
    "matched_pairwise_iou",
    "merge_rles",
    "pairwise_intersection",
    "pairwise_ioa",
    "pairwise_iou",
    "pairwise_point_box_distance",
    "paste_masks_in_image",
    "polygons_to_bitmask",
    "rasterize_polygons",
    "rasterize_polygons_within_box",
    "rasterize_polygons_within_boxes",
    "rle_areas",
    "rle_boxes",
]
