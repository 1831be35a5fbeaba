import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hookline.structures import BoxMode

NUMBERS = st.floats(-1e4, 1e4, allow_nan=False)


@given(st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS))
def test_corner_and_size_are_inverse(box):
    there = BoxMode.convert(box, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    back = BoxMode.convert(there, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert type(back) is tuple
    np.testing.assert_allclose(back, box, atol=1e-9)


@pytest.mark.parametrize("make", [list, tuple, np.array, torch.tensor])
def test_the_container_is_kept(make):
    box = make([5.0, 5.0, 10.0, 10.0])
    result = BoxMode.convert(box, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
    assert type(result) is type(box)
    assert [float(v) for v in result] == [5, 5, 5, 5]


def test_many_boxes_at_once():
    boxes = np.arange(24.0).reshape(2, 3, 4)
    result = BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS)
    assert result.shape == (2, 3, 4)
    np.testing.assert_array_equal(result[..., 2:], boxes[..., :2] + boxes[..., 2:])


@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_the_upright_box_around_a_rotated_one(make):
    turned = BoxMode.convert(make([50.0, 50.0, 30.0, 20.0, 90.0]), BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
    np.testing.assert_allclose(np.asarray(turned), [40, 35, 60, 65], atol=1e-4)
    diagonal = BoxMode.convert(make([0.0, 0.0, 2.0, 2.0, 45.0]), BoxMode.XYWHA_ABS, BoxMode.XYXY_ABS)
    np.testing.assert_allclose(np.asarray(diagonal)[2:], [math.sqrt(2)] * 2, atol=1e-5)


def test_upright_becomes_rotated_by_zero():
    assert BoxMode.convert([10.0, 20.0, 4.0, 6.0], BoxMode.XYWH_ABS, BoxMode.XYWHA_ABS) == [12, 23, 4, 6, 0]
    assert BoxMode.convert([10.0, 20.0, 14.0, 26.0], BoxMode.XYXY_ABS, BoxMode.XYWHA_ABS) == [12, 23, 4, 6, 0]


def test_equal_modes_return_the_box_itself():
    box = [1, 2, 3, 4]
    assert BoxMode.convert(box, BoxMode.XYXY_ABS, BoxMode.XYXY_ABS) is box


def test_modes_are_detectron2s_numbers():
    assert [int(mode) for mode in BoxMode] == [0, 1, 2, 3, 4]


def test_relative_boxes_are_refused():
    with pytest.raises(NotImplementedError, match="XYXY_REL to XYXY_ABS"):
        BoxMode.convert([0, 0, 1, 1], BoxMode.XYXY_REL, BoxMode.XYXY_ABS)


@pytest.mark.parametrize("box", [[1, 2, 3], np.zeros((2, 5)), torch.zeros(5)])
def test_a_wrong_number_of_coordinates_is_refused(box):
    with pytest.raises(ValueError, match="XYXY_ABS box has 4 coordinates"):
        BoxMode.convert(box, BoxMode.XYXY_ABS, BoxMode.XYWH_ABS)
