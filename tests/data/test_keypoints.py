"""Keypoints under geometry."""

import numpy as np
import pytest

import hookline.data.transforms as T
from hookline.data.catalog import Metadata
from hookline.data.errors import BadSampleError
from hookline.data.keypoints import (
    create_keypoint_hflip_indices,
    keypoint_hflip_indices,
    keypoints_array,
    transform_keypoint_annotations,
)

NAMES = ["nose", "left_eye", "right_eye"]
FLIP = [("left_eye", "right_eye")]


def test_indices():
    assert keypoint_hflip_indices(NAMES, FLIP).tolist() == [0, 2, 1]
    person = Metadata("a", keypoint_names=NAMES, keypoint_flip_map=FLIP)
    assert create_keypoint_hflip_indices([person, person]).tolist() == [0, 2, 1]
    assert create_keypoint_hflip_indices(person).tolist() == [0, 2, 1]
    with pytest.raises(ValueError, match="'left_ear', which is none of nose"):
        keypoint_hflip_indices(NAMES, [("left_ear", "nose")])
    with pytest.raises(ValueError, match="'a' and 'b'"):
        create_keypoint_hflip_indices([person, Metadata("b", keypoint_names=NAMES, keypoint_flip_map=[])])
    with pytest.raises(ValueError, match="at least one"):
        create_keypoint_hflip_indices([])


def test_mirroring_swaps_sides_and_twice_is_nothing():
    points = [10, 10, 2, 4, 8, 2, 16, 8, 1]
    flip = T.HFlipTransform(100)
    mirrored = transform_keypoint_annotations(points, flip, (50, 100), [0, 2, 1])
    assert mirrored.tolist() == [[90, 10, 2], [84, 8, 1], [96, 8, 2]]
    twice = transform_keypoint_annotations(points, T.TransformList([flip, flip]), (50, 100), None)
    assert twice.reshape(-1).tolist() == points
    several = transform_keypoint_annotations(np.array([points, points]).reshape(2, 3, 3), flip, (50, 100), [0, 2, 1])
    assert np.array_equal(several, np.stack([mirrored, mirrored]))


def test_outside_and_unlabelled():
    crop = T.CropTransform(5, 0, 20, 20)
    result = transform_keypoint_annotations([[10, 10, 2], [4, 8, 2], [16, 8, 0], [25, 20, 1]], crop, (20, 20))
    assert result.tolist() == [[5, 10, 2], [0, 0, 0], [0, 0, 0], [20, 20, 1]]


def test_refusals():
    flip = T.HFlipTransform(100)
    with pytest.raises(ValueError, match="keypoint_hflip_indices is missing"):
        transform_keypoint_annotations([1, 1, 1], flip, (50, 100))
    with pytest.raises(ValueError, match="2 entries for 1 keypoints"):
        transform_keypoint_annotations([1, 1, 1], flip, (50, 100), [0, 1])
    with pytest.raises(BadSampleError, match="annotation 3: it has no keypoints"):
        keypoints_array([{"keypoints": [1, 1, 1], "id": 1}, {"id": 3}])
    with pytest.raises(BadSampleError, match=r"annotation at position 1: .*6 numbers, expected 3"):
        keypoints_array([{"keypoints": [1, 1, 1]}, {"keypoints": [1, 1, 1, 2, 2, 2]}])
    with pytest.raises(BadSampleError, match="2 numbers"):
        keypoints_array([{"keypoints": [1, 1]}])
    assert keypoints_array([], 17).shape == (0, 17, 3)
