import numpy as np
import pytest
import torch

from hookline.structures import BitMasks, Boxes, Keypoints, PolygonMasks
from hookline.visualization.shapes import boxes_of, keypoints_of, shape_area, shape_bounds, shapes_of

SQUARE = [2.0, 1.0, 6.0, 1.0, 6.0, 4.0, 2.0, 4.0]


def bitmap():
    mask = np.zeros((8, 10), bool)
    mask[1:4, 2:6] = True
    return mask


@pytest.mark.parametrize(
    "masks",
    [
        PolygonMasks([[np.array(SQUARE)]]),
        BitMasks(torch.from_numpy(bitmap())[None]),
        torch.from_numpy(bitmap())[None],
        bitmap()[None],
        [[SQUARE]],
        [bitmap()],
        [{"size": [8, 10], "counts": [17, 3, 5, 3, 5, 3, 5, 3, 36]}],
    ],
    ids=["PolygonMasks", "BitMasks", "tensor", "array", "polygons", "bitmaps", "run lengths"],
)
def test_all_forms_of_masks_are_the_same_shape(masks):
    (shape,) = shapes_of(masks, (8, 10))
    assert shape_area(shape) == 12
    assert shape_bounds(shape).tolist() == [2, 1, 6, 4]


def test_compressed_run_lengths_as_text():
    from pycocotools import mask as coco_mask

    rle = coco_mask.encode(np.asfortranarray(bitmap().astype(np.uint8)))
    for counts in (rle["counts"], rle["counts"].decode()):
        (shape,) = shapes_of([{"size": [8, 10], "counts": counts}], (8, 10))
        assert np.array_equal(shape, bitmap())


def test_empty_things():
    assert shapes_of([], (8, 10)) == []
    assert shapes_of(torch.zeros(0, 8, 10, dtype=torch.bool), (8, 10)) == []
    assert shape_bounds(shapes_of([[]], (8, 10))[0]).tolist() == [0, 0, 0, 0]
    assert shape_bounds(np.zeros((8, 10), bool)).tolist() == [0, 0, 0, 0]
    assert boxes_of([]).shape == (0, 4)
    assert keypoints_of(torch.zeros(0, 17, 3)).shape == (0, 0, 3)


def test_boxes_and_keypoints():
    assert boxes_of(Boxes(torch.tensor([[1.0, 2, 3, 4]]))).tolist() == [[1, 2, 3, 4]]
    assert keypoints_of(Keypoints(torch.ones(2, 5, 3))).shape == (2, 5, 3)


@pytest.mark.parametrize(
    ("function", "wrong", "words"),
    [
        (boxes_of, [[1, 2, 3]], "boxes are"),
        (keypoints_of, np.ones((2, 5)), "keypoints are"),
        (lambda m: shapes_of(m, (8, 10)), [np.ones((9, 10), bool)], "the mask is 9x10, the image 8x10"),
        (lambda m: shapes_of(m, (8, 10)), np.ones((8, 10), bool), "masks are"),
        (lambda m: shapes_of(m, (8, 10)), [[[1.0, 2.0, 3.0]]], "a mask is"),
    ],
)
def test_other_shapes_are_refused(function, wrong, words):
    with pytest.raises(ValueError, match=words):
        function(wrong)
