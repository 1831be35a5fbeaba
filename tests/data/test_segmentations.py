"""Polygons, codes and bitmaps through geometry to masks."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

import hookline.data.transforms as T
from hookline.data.errors import BadSampleError
from hookline.data.segmentations import Segmentations
from hookline.structures import BitMasks, PolygonMasks

SIZE = (40, 60)
POLYGON = [5.0, 5, 30, 5, 30, 25, 5, 25]


def bitmap():
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[10:30, 20:50] = 1
    return mask


def code(kind):
    compressed = coco_mask.encode(np.asfortranarray(bitmap()))
    if kind == "bytes":
        return compressed
    if kind == "str":
        return {"size": compressed["size"], "counts": compressed["counts"].decode()}
    flat = bitmap().T.reshape(-1)
    edges = np.flatnonzero(np.diff(flat)) + 1
    return {"size": list(SIZE), "counts": np.diff([0, *edges, flat.size]).tolist()}


@pytest.mark.parametrize("segmentation", [code("bytes"), code("str"), code("list"), bitmap(), bitmap().astype(bool)])
def test_codes_and_bitmaps_move_like_images(segmentation):
    transforms = T.TransformList(
        [T.ResizeTransform(*SIZE, 80, 90), T.HFlipTransform(90), T.CropTransform(3, 4, 50, 60)]
    )
    masks = Segmentations.from_annotations([{"segmentation": segmentation}], SIZE).transformed(transforms)
    result = masks.to_masks((60, 50))
    assert isinstance(result, BitMasks)
    assert np.array_equal(result.tensor[0].numpy(), transforms.apply_segmentation(bitmap()).astype(bool))


def test_a_mixture_becomes_bitmaps_in_order():
    annotations = [{"segmentation": s} for s in (code("bytes"), [POLYGON], bitmap(), [POLYGON, POLYGON])]
    result = Segmentations.from_annotations(annotations, SIZE).to_masks(SIZE)
    drawn = BitMasks.from_polygon_masks([[np.array(POLYGON)]], *SIZE).tensor[0]
    pixels = torch.from_numpy(bitmap()).bool()
    assert torch.equal(result.tensor, torch.stack([pixels, drawn, pixels, drawn]))


def test_formats():
    segmentations = Segmentations.from_annotations([{"segmentation": [POLYGON]}, {"segmentation": [POLYGON]}])
    assert isinstance(segmentations.to_masks(SIZE), PolygonMasks)
    assert isinstance(segmentations.to_masks(SIZE, "bitmask"), BitMasks)
    with pytest.raises(ValueError, match="'mask' is none of polygon, bitmask"):
        segmentations.to_masks(SIZE, "mask")
    none = Segmentations.from_annotations([], SIZE)
    assert len(none.to_masks(SIZE)) == 0
    assert none.to_masks(SIZE, "bitmask").tensor.shape == (0, *SIZE)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({}, "no segmentation"),
        ({"segmentation": 5}, "but a int"),
        ({"segmentation": {"counts": b"x"}}, "but a dict"),
        ({"segmentation": {"size": [2, 2], "counts": [4]}}, r"\(2, 2\).*\(40, 60\)"),
        ({"segmentation": np.zeros((3, 3))}, r"\(3, 3\).*\(40, 60\)"),
        ({"segmentation": {"size": [40, 60], "counts": None}}, "cannot be decoded"),
    ],
)
def test_unusable_segmentations_are_named(annotation, words):
    good = {"segmentation": [POLYGON], "id": 1}
    with pytest.raises(BadSampleError, match=f"annotation 77: .*{words}"):
        Segmentations.from_annotations([good, {**annotation, "id": 77}], SIZE)
