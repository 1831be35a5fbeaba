"""Resizing beside PIL, and the sizes that are drawn."""

import numpy as np
import pytest
from PIL import Image

import hookline.data.transforms as T


def photo(shape, seed=0):
    """Smooth structures with some noise."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (shape[0] // 8 + 1, shape[1] // 8 + 1, 3)).astype(np.uint8)
    large = np.array(Image.fromarray(small).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
    return (large + random.integers(0, 8, large.shape)).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(800, 1067), (300, 400), (480, 1000), (123, 457), (1, 1)])
@pytest.mark.parametrize("method", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
def test_differs_from_pil_by_a_level_in_few_values(size, method):
    image = photo((480, 640))
    result = T.ResizeTransform(480, 640, *size, method).apply_image(image)
    difference = np.abs(result.astype(int) - np.array(Image.fromarray(image).resize(size[::-1], method)).astype(int))
    linear = method == Image.Resampling.BILINEAR
    assert difference.max() <= (1 if linear else 2)
    assert (difference > 0).mean() < (0.01 if linear else 0.05)


def test_equals_pil_to_the_bit_at_simple_ratios():
    image = photo((480, 640))
    for size in [(800, 640), (480, 640), (240, 320), (960, 1280)]:
        result = T.ResizeTransform(480, 640, *size).apply_image(image)
        assert np.array_equal(result, np.array(Image.fromarray(image).resize(size[::-1], Image.Resampling.BILINEAR)))


@pytest.mark.parametrize("method", [Image.Resampling.LANCZOS, Image.Resampling.BOX, Image.Resampling.HAMMING])
def test_other_methods_are_pils(method):
    image = photo((60, 80))
    result = T.ResizeTransform(60, 80, 33, 101, method).apply_image(image)
    assert np.array_equal(result, np.array(Image.fromarray(image).resize((101, 33), method)))


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[:, :, ::-1],
        lambda a: a[:, ::-1],
        lambda a: a[::-1, ::-1, ::-1],
        lambda a: a[5:40, 7:60],
        lambda a: a.transpose(1, 0, 2),
        lambda a: a[:, :, 0],
        lambda a: a[:, :, :1],
        lambda a: np.concatenate([a, a[:, :, :1]], axis=2),
        lambda a: np.broadcast_to(a[:, :, :1], a.shape),
    ],
)
def test_any_view_is_resized_like_its_copy(view):
    image = view(photo((48, 64)))
    resize = T.ResizeTransform(*image.shape[:2], 50, 90)
    result = resize.apply_image(image)
    assert result.shape == (50, 90, *image.shape[2:])
    assert np.array_equal(result, resize.apply_image(np.ascontiguousarray(image).copy()))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint16, np.int32])
def test_other_types_are_resized_alike(dtype):
    image = photo((48, 64))
    reference = T.ResizeTransform(48, 64, 30, 100).apply_image(image)
    result = T.ResizeTransform(48, 64, 30, 100).apply_image(image.astype(dtype))
    assert result.dtype == dtype
    # uint8 is rounded once more between the two directions
    assert np.abs(result - reference.astype(float)).max() <= 1.5


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, bool])
@pytest.mark.parametrize("size", [(7, 90), (61, 3), (20, 30), (40, 60)])
def test_label_maps_take_the_value_under_the_centre(dtype, size):
    labels = np.random.default_rng(0).integers(0, 2 if dtype is bool else 200, (20, 30)).astype(dtype)
    result = T.ResizeTransform(20, 30, *size).apply_segmentation(labels)
    rows = np.floor((np.arange(size[0]) + 0.5) * 20 / size[0]).astype(int)
    columns = np.floor((np.arange(size[1]) + 0.5) * 30 / size[1]).astype(int)
    assert result.dtype == dtype
    assert np.array_equal(result, labels[rows][:, columns])
    pil = Image.fromarray(labels.astype(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(result.astype(np.uint8), np.array(pil))


def test_coordinates_and_inverse():
    resize = T.ResizeTransform(20, 30, 40, 15)
    points = np.array([[0.0, 0.0], [30.0, 20.0], [-3.0, 10.0]])
    moved = resize.apply_coords(points.copy())
    assert np.allclose(moved, [[0, 0], [15, 40], [-1.5, 20]])
    assert np.allclose(resize.inverse().apply_coords(moved), points)


def test_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(20, 30\).*\(30, 20\)"):
        T.ResizeTransform(20, 30, 40, 40).apply_image(np.zeros((30, 20, 3), np.uint8))
    with pytest.raises(ValueError, match=r"\(20, 30\)"):
        T.ResizeTransform(20, 30, 40, 40).apply_segmentation(np.zeros((30, 20), np.uint8))


@pytest.mark.parametrize(
    ("size", "short", "limit", "expected"),
    [
        ((480, 640), 800, 1333, (800, 1067)),
        ((640, 480), 800, 1333, (1067, 800)),
        ((400, 1000), 800, 1333, (533, 1333)),
        ((500, 500), 333, 1333, (333, 333)),
        ((427, 640), 640, 1000, (640, 959)),
    ],
)
def test_shortest_edge(size, short, limit, expected):
    assert T.ResizeShortestEdge.get_output_shape(*size, short, limit) == expected
    transform = T.ResizeShortestEdge(short, limit).get_transform(np.zeros((*size, 3), np.uint8))
    assert (transform.new_h, transform.new_w) == expected


def test_shortest_edge_draws_from_numpys_global_generator():
    image = np.zeros((100, 100, 3), np.uint8)
    np.random.seed(3)
    ranged = [T.ResizeShortestEdge((50, 60)).get_transform(image).new_h for _ in range(300)]
    chosen = [T.ResizeShortestEdge((50, 60), sample_style="choice").get_transform(image).new_h for _ in range(50)]
    np.random.seed(3)
    assert ranged == [np.random.randint(50, 61) for _ in range(300)]
    assert chosen == [np.random.choice((50, 60)) for _ in range(50)]
    assert set(ranged) == set(range(50, 61))
    assert isinstance(T.ResizeShortestEdge(0).get_transform(image), T.NoOpTransform)


@pytest.mark.parametrize("arguments", [((50, 40),), ((40, 50, 60),), ((),), ((40, 50), 100, "uniform")])
def test_shortest_edge_refuses_nonsense(arguments):
    with pytest.raises(ValueError, match="sample_style"):
        T.ResizeShortestEdge(*arguments)


def test_fixed_and_listed_sizes():
    image = np.zeros((10, 20, 3), np.uint8)
    assert T.Resize(7).get_transform(image).apply_image(image).shape == (7, 7, 3)
    assert T.Resize((7, 9)).get_transform(image).apply_image(image).shape == (7, 9, 3)
    np.random.seed(0)
    sizes = {T.RandomResize([(5, 6), (7, 8)]).get_transform(image).apply_image(image).shape[:2] for _ in range(30)}
    assert sizes == {(5, 6), (7, 8)}


def test_large_scale_jitter_keeps_the_aspect_and_fits_the_scaled_target():
    image = np.zeros((100, 200, 3), np.uint8)
    np.random.seed(0)
    transforms = [T.ResizeScale(0.1, 2.0, 64, 64).get_transform(image) for _ in range(200)]
    np.random.seed(0)
    for transform in transforms:
        scale = np.random.uniform(0.1, 2.0)
        assert transform.new_w == round(64 * scale)
        assert abs(transform.new_h - transform.new_w / 2) <= 1
    tiny = T.ResizeScale(0.001, 0.001, 64, 64).get_transform(image)
    assert (tiny.new_h, tiny.new_w) == (1, 1)
