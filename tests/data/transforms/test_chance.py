"""Chances: how often, and what is applied."""

import numpy as np
import pytest

import hookline.data.transforms as T

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


class CropToBox(T.Augmentation):
    def get_transform(self, image, boxes):
        return T.CropTransform(5, 4, 25, 16)


def test_flips():
    np.random.seed(2)
    kinds = [type(T.RandomFlip().get_transform(IMAGE)) for _ in range(50)]
    np.random.seed(2)
    expected = [T.HFlipTransform if np.random.uniform() < 0.5 else T.NoOpTransform for _ in range(50)]
    assert kinds == expected
    vertical = T.RandomFlip(1.0, horizontal=False, vertical=True).get_transform(IMAGE)
    assert np.array_equal(vertical.apply_image(IMAGE), IMAGE[::-1])
    for arguments in ({"vertical": True}, {"horizontal": False}):
        with pytest.raises(ValueError, match="one direction"):
            T.RandomFlip(**arguments)
    with pytest.raises(ValueError, match="prob"):
        T.RandomFlip(1.5)


def test_random_apply():
    boxes = np.array([[5.0, 4, 10, 12]])
    always, never = T.RandomApply(CropToBox(), 1.0), T.RandomApply(T.HFlipTransform(30), 0.0)
    aug_input = T.AugInput(IMAGE, boxes=boxes)
    transforms = aug_input.apply_augmentations([always, never])
    assert [type(t) for t in transforms.transforms] == [T.CropTransform, T.NoOpTransform]
    assert aug_input.image.shape == (16, 25, 3)
    np.random.seed(0)
    sometimes = T.RandomApply(T.HFlipTransform(30), 0.3)
    share = np.mean([isinstance(sometimes(T.AugInput(IMAGE)), T.HFlipTransform) for _ in range(500)])
    assert 0.2 < share < 0.4
    assert isinstance(T.RandomApply(T.HFlipTransform(30), 1.0).get_transform(IMAGE), T.HFlipTransform)
