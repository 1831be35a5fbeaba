"""Rotation and extents: image, labels and points move together."""

import numpy as np
import pytest
from PIL import Image

import hookline.data.transforms as T


def dots(height, width, points, radius=3):
    """A black image with a bright square about each point."""
    image = np.zeros((height, width, 3), np.uint8)
    for channel, (x, y) in enumerate(points):
        image[y - radius : y + radius, x - radius : x + radius, channel] = 200
    return image


def centres(image):
    """The centre of mass of each channel as (x, y)."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    mass = image.astype(float).sum(axis=(0, 1))
    return np.stack([(image * x[:, :, None]).sum((0, 1)) / mass, (image * y[:, :, None]).sum((0, 1)) / mass], axis=1)


POINTS = [(40, 30), (60, 25), (30, 50)]


@pytest.mark.parametrize("expand", [True, False])
@pytest.mark.parametrize("angle", [10, 33.3, 90, 180, 250, -45])
def test_image_labels_and_points_agree(angle, expand):
    image = dots(80, 100, POINTS)
    rotate = T.RotationTransform(80, 100, angle, expand=expand, center=None if expand else (45, 35))
    moved = rotate.apply_coords(np.array(POINTS, dtype=float))
    assert np.abs(centres(rotate.apply_image(image)) - moved).max() < 0.15
    labels = rotate.apply_segmentation((image[:, :, 0] > 0).astype(np.int64) * 70000)
    assert set(np.unique(labels)) == {0, 70000}
    assert np.abs(centres((labels > 0)[:, :, None]) - moved[:1]).max() < 0.4
    assert rotate.apply_image(image).shape == (rotate.bound_h, rotate.bound_w, 3)


@pytest.mark.parametrize(("angle", "turns"), [(90, 1), (180, 2), (270, 3), (-90, 3)])
def test_right_angles_are_exact_and_counter_clockwise(angle, turns):
    image = np.random.default_rng(0).integers(0, 255, (8, 12, 3)).astype(np.uint8)
    rotate = T.RotationTransform(8, 12, angle)
    assert np.array_equal(rotate.apply_image(image), np.rot90(image, turns))
    assert np.array_equal(rotate.apply_segmentation(image[:, :, 0]), np.rot90(image[:, :, 0], turns))


def test_expand_keeps_everything():
    rotate = T.RotationTransform(80, 100, 37)
    corners = rotate.apply_coords(np.array([[0, 0], [100, 0], [0, 80], [100, 80.0]]))
    assert (corners >= -0.5).all()
    assert (corners <= (rotate.bound_w + 0.5, rotate.bound_h + 0.5)).all()


@pytest.mark.parametrize("size", [(80, 100), (81, 100), (7, 50)])
@pytest.mark.parametrize("angle", [12, 45, 133])
def test_inverse(size, angle):
    rotate = T.RotationTransform(*size, angle)
    points = np.array([[0, 0], [30.0, 5.0], [44, 6]])
    back = rotate.inverse()
    assert np.abs(back.apply_coords(rotate.apply_coords(points.copy())) - points).max() < 1e-9
    assert back.apply_image(rotate.apply_image(np.zeros((*size, 3), np.uint8))).shape == (*size, 3)
    with pytest.raises(NotImplementedError, match="expand"):
        T.RotationTransform(*size, angle, expand=False).inverse()


def test_full_turns_and_no_points():
    image = dots(80, 100, POINTS)
    assert T.RotationTransform(80, 100, 360).apply_image(image) is image
    assert T.RotationTransform(80, 100, 20).apply_coords(np.empty((0, 2))).shape == (0, 2)
    with pytest.raises(ValueError, match=r"\(80, 100\)"):
        T.RotationTransform(80, 100, 20).apply_image(image[:50])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int32])
def test_other_types_and_channels(dtype):
    image = dots(80, 100, POINTS)
    rotate = T.RotationTransform(80, 100, 25)
    result = rotate.apply_image(image.astype(dtype))
    assert result.dtype == dtype
    assert np.abs(result.astype(float) - rotate.apply_image(image)).max() <= 1
    four = np.concatenate([image, image[:, :, :1]], axis=2)
    assert np.array_equal(rotate.apply_image(four)[:, :, 3], rotate.apply_image(image)[:, :, 0])
    assert np.array_equal(rotate.apply_image(image[:, :, :1])[:, :, 0], rotate.apply_image(image[:, :, 0]))
    mask = rotate.apply_segmentation(image[:, :, 0] > 0)
    assert mask.dtype == bool


def test_random_rotation_draws():
    image = np.zeros((80, 100, 3), np.uint8)
    np.random.seed(5)
    drawn = T.RandomRotation((-30, 30), expand=False, center=[[0.2, 0.3], [0.4, 0.5]]).get_transform(image)
    np.random.seed(5)
    assert drawn.angle == np.random.uniform(-30, 30)
    assert drawn.center == (100 * np.random.uniform(0.2, 0.4), 80 * np.random.uniform(0.3, 0.5))
    angles = {T.RandomRotation([0, 90, 10], sample_style="choice").get_transform(image) for _ in range(40)}
    assert {getattr(t, "angle", 0) for t in angles} == {0, 10, 90}
    chosen = T.RandomRotation([10], sample_style="choice", expand=False, center=[(0.5, 0.25)]).get_transform(image)
    assert chosen.center == (50, 20)
    assert T.RandomRotation(15).get_transform(image).angle == 15
    with pytest.raises(ValueError, match="sample_style"):
        T.RandomRotation(15, sample_style="x")


def test_extent_agrees_with_pil_and_points():
    image = dots(80, 100, POINTS)
    extent = T.ExtentTransform((10, 5, 90, 75), (35, 120))
    result = extent.apply_image(image)
    pil = Image.fromarray(image).transform(
        (120, 35), Image.Transform.EXTENT, (10, 5, 90, 75), Image.Resampling.BILINEAR
    )
    assert np.abs(result.astype(int) - np.array(pil)).max() <= 1
    assert np.abs(centres(result) - extent.apply_coords(np.array(POINTS, dtype=float))).max() < 0.3
    beyond = T.ExtentTransform((-10, 0, 100, 80), (80, 110), fill=9)
    assert (beyond.apply_image(image)[:, :10] == 9).all()
    assert beyond.apply_segmentation(image[:, :, 0]).shape == (80, 110)
    mirrored = T.ExtentTransform((100, 0, 0, 80), (80, 100), Image.Resampling.NEAREST)
    assert np.array_equal(mirrored.apply_image(image), image[:, ::-1])


def test_random_extent_stays_in_its_ranges():
    image = np.zeros((80, 100, 3), np.uint8)
    np.random.seed(0)
    for _ in range(50):
        drawn = T.RandomExtent((0.5, 1.5), (0.2, 0.4)).get_transform(image)
        x0, y0, x1, y1 = drawn.src_rect
        assert 50 <= x1 - x0 <= 150
        assert (x1 - x0) / (y1 - y0) == pytest.approx(1.25)
        assert abs((x0 + x1) / 2 - 50) <= 10
        assert abs((y0 + y1) / 2 - 40) <= 16
        assert abs(drawn.output_size[1] - (x1 - x0)) <= 0.5
