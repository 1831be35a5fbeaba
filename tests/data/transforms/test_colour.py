"""Colour: fvcore's numbers, faster; geometry stays."""

import numpy as np
import pytest
from fvcore.transforms.transform import BlendTransform as ReferenceBlend
from PIL import ImageOps

import hookline.data.transforms as T

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)


@pytest.mark.parametrize("source", [0, 117.3, np.float64(80.5), IMAGE[::-1].astype(np.float32), np.array([1.0, -4, 9])])
@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 1.7])
def test_blend_equals_fvcores(source, weight):
    ours, reference = T.BlendTransform(source, 1 - weight, weight), ReferenceBlend(source, 1 - weight, weight)
    for image in (IMAGE, IMAGE[:, ::-1, ::-1]):
        difference = np.abs(ours.apply_image(image).astype(int) - reference.apply_image(image))
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01
    assert np.array_equal(ours.apply_image(IMAGE / 255.0), reference.apply_image(IMAGE / 255.0))


def test_draws_and_meaning():
    np.random.seed(0)
    contrast = T.RandomContrast(0.5, 1.5).get_transform(IMAGE)
    brightness = T.RandomBrightness(0.5, 1.5).get_transform(IMAGE)
    saturation = T.RandomSaturation(0.5, 1.5).get_transform(IMAGE)
    lighting = T.RandomLighting(0.1).get_transform(IMAGE)
    np.random.seed(0)
    weights = [np.random.uniform(0.5, 1.5) for _ in range(3)]
    assert [contrast.dst_weight, brightness.dst_weight, saturation.dst_weight] == weights
    assert contrast.src_image == IMAGE.mean()
    assert np.abs(brightness.apply_image(IMAGE) - (IMAGE * weights[1]).clip(0, 255)).max() <= 1
    assert lighting.src_image.shape == (3,)
    grey = T.RandomSaturation(0, 0).get_transform(IMAGE).apply_image(IMAGE)
    assert (np.ptp(grey.astype(int), axis=2) == 0).all()
    for unchanged in (T.RandomContrast(1, 1), T.RandomBrightness(1, 1), T.RandomSaturation(1, 1), T.RandomLighting(0)):
        assert np.array_equal(unchanged.get_transform(IMAGE).apply_image(IMAGE), IMAGE)


@pytest.mark.parametrize("augmentation", [T.RandomSaturation(0.5, 1), T.RandomLighting(0.1)])
def test_colour_needs_three_channels(augmentation):
    with pytest.raises(ValueError, match=r"needs an RGB image.*\(20, 30, 1\)"):
        augmentation.get_transform(IMAGE[:, :, :1])


def test_functions_as_transforms():
    invert = T.ColorTransform(lambda image: 255 - image)
    assert np.array_equal(invert.apply_image(IMAGE), 255 - IMAGE)
    assert np.array_equal(T.PILColorTransform(ImageOps.invert).apply_image(IMAGE[:, ::-1]), 255 - IMAGE[:, ::-1])
    labels, points = IMAGE[:, :, 0], np.ones((2, 2))
    assert invert.apply_segmentation(labels) is labels
    assert invert.apply_coords(points) is points
    assert isinstance(invert.inverse(), T.NoOpTransform)
    with pytest.raises(TypeError, match="function"):
        T.ColorTransform(3)
