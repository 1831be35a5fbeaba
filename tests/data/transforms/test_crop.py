"""Crops: windows, clipped polygons, fixed sizes."""

import numpy as np
import pytest

import hookline.data.transforms as T
from hookline.data.transforms.crop import clip_polygon
from hookline.structures import polygons_to_bitmask


def area(points):
    x, y = points[:, 0], points[:, 1]
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2


def star(random, count):
    angle = np.sort(random.uniform(0, 2 * np.pi, count))
    return random.uniform(0, 40, 2) + random.uniform(2, 30, (count, 1)) * np.stack((np.cos(angle), np.sin(angle)), 1)


def test_clipped_polygons_cover_what_the_window_leaves():
    random = np.random.default_rng(0)
    for _ in range(200):
        polygon = star(random, random.integers(3, 20)) * 4
        x0, y0 = random.integers(0, 80, 2)
        width, height = random.integers(1, 80, 2)
        clipped = T.CropTransform(x0, y0, width, height).apply_polygons([polygon])
        mask = polygons_to_bitmask([polygon.reshape(-1)], 200, 200)[y0 : y0 + height, x0 : x0 + width]
        if not clipped:
            assert mask.mean() < 0.05
            continue
        assert clipped[0].min() >= 0
        assert (clipped[0] <= (width, height)).all()
        drawn = polygons_to_bitmask([clipped[0].reshape(-1)], height, width)
        # pixels that an edge cuts may fall to either side
        assert np.logical_xor(mask, drawn).sum() <= 2 * (width + height) * 0.1 + 4


def test_exact_areas_of_known_cuts():
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10.0]])
    assert area(clip_polygon(square, (2, 3, 6, 20))) == 4 * 7
    assert np.array_equal(clip_polygon(square, (-5, -5, 20, 20)), square)
    assert len(clip_polygon(square, (20, 20, 30, 30))) == 0
    assert len(clip_polygon(square, (10, 0, 30, 30))) == 0  # only an edge is left
    # a U open to the top: the window takes its two arms, which stay one polygon of the right area
    u = np.array([[0, 0], [2, 0], [2, 8], [8, 8], [8, 0], [10, 0], [10, 10], [0, 10.0]])
    assert area(clip_polygon(u, (0, 0, 10, 5))) == 2 * 2 * 5


def test_clipping_leaves_its_input_alone():
    polygon = np.array([[0, 0], [10, 0], [10, 10], [0, 10.0]])
    before = polygon.copy()
    T.CropTransform(0, 0, 10, 10).apply_polygons([polygon])
    T.CropTransform(2, 2, 5, 5).apply_polygons([polygon])
    assert np.array_equal(polygon, before)


@pytest.mark.parametrize(
    ("kind", "size", "low", "high"),
    [
        ("absolute", (30, 50), (30, 50), (30, 50)),
        ("absolute", (300, 500), (60, 80), (60, 80)),
        ("absolute_range", (30, 70), (30, 30), (60, 70)),
        ("relative", (0.5, 0.25), (30, 20), (30, 20)),
        ("relative_range", (0.5, 0.25), (30, 20), (60, 80)),
        ("relative", (1, 1), (60, 80), (60, 80)),
    ],
)
def test_window_sizes(kind, size, low, high):
    np.random.seed(0)
    image = np.arange(60 * 80 * 3).reshape(60, 80, 3)
    for _ in range(100):
        window = T.RandomCrop(kind, size).get_transform(image)
        result = window.apply_image(image)
        assert result.shape == (window.h, window.w, 3)
        assert low[0] <= window.h <= high[0]
        assert low[1] <= window.w <= high[1]
    assert T.RandomCrop("relative", (0.001, 0.001)).get_crop_size((60, 80)) == (1, 1)


@pytest.mark.parametrize(
    ("kind", "size", "words"),
    [
        ("relativ", (1, 1), "none of relative"),
        ("relative", (2, 1), "fractions"),
        ("relative_range", (0, 1), "fractions"),
        ("absolute", (0, 5), "does not suit"),
        ("absolute_range", (9, 5), "does not suit"),
    ],
)
def test_nonsense_is_refused(kind, size, words):
    with pytest.raises(ValueError, match=words):
        T.RandomCrop(kind, size)


def test_windows_with_one_class_only_are_drawn_again():
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    labels[:2] = 255
    image = np.zeros((40, 40, 3), np.uint8)
    crop = T.RandomCrop_CategoryAreaConstraint("absolute", (20, 20), 0.9, ignored_value=255)
    np.random.seed(0)
    shares = []
    for _ in range(50):
        aug_input = T.AugInput(image, sem_seg=labels)
        crop(aug_input)
        counts = np.bincount(aug_input.sem_seg.reshape(-1), minlength=256)[:2]
        shares.append(counts.max() / counts.sum())
    assert np.mean(np.array(shares) < 0.9) > 0.9
    anything = T.RandomCrop_CategoryAreaConstraint("absolute", (20, 20))
    assert anything.get_transform(image, labels).w == 20


def test_fixed_size_pads_and_crops():
    image = np.random.default_rng(0).integers(0, 255, (50, 20, 3)).astype(np.uint8)
    np.random.seed(1)
    transforms = T.FixedSizeCrop((30, 40)).get_transform(image)
    crop, pad = transforms.transforms
    np.random.seed(1)
    assert crop.y0 == round(20 * np.random.uniform(0, 1))
    assert (crop.x0, crop.w, crop.h) == (0, 20, 30)
    result = transforms.apply_image(image)
    assert result.shape == (30, 40, 3)
    assert np.array_equal(result[:, :20], image[crop.y0 : crop.y0 + 30])
    assert (result[:, 20:] == 128).all()
    assert (transforms.apply_segmentation(image[:, :, 0])[:, 20:] == 255).all()
    # a polygon that fills the image does not reach into the padding
    polygon = np.array([[0, 0], [20, 0], [20, 50], [0, 50.0]])
    assert transforms.apply_polygons([polygon])[0].max(axis=0).tolist() == [20, 30]
    unpadded = T.FixedSizeCrop((30, 40), pad=False).get_transform(image)
    assert unpadded.apply_image(image).shape == (30, 20, 3)
    assert isinstance(pad, T.PadTransform)
