import numpy as np
import pytest

from hookline.visualization.canvas import Canvas

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def canvas():
    return Canvas(np.zeros((60, 80, 3), np.uint8))


def pixels(canvas):
    return np.asarray(canvas.image).astype(int)


def square(x0, y0, x1, y1):
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], float)


def test_a_filled_square_covers_its_pixels_only(canvas):
    canvas.fill([square(10, 20, 30, 40)], RED)
    red = pixels(canvas)[..., 0]
    assert (red[21:39, 11:29] == 255).all()
    assert red[:19].sum() == red[42:].sum() == 0
    assert abs(red.sum() / 255 - 400) < 30


def test_opacity_mixes_and_overlaps_in_one_call_do_not_add_up(canvas):
    canvas.fill([square(10, 10, 30, 30), square(20, 10, 40, 30)], RED, alpha=0.5)
    assert np.unique(pixels(canvas)[12:28, 12:38, 0]).tolist() == [128]


def test_shapes_outside_or_without_points_draw_nothing(canvas):
    canvas.fill([square(-50, -50, -10, -10)], RED)
    canvas.fill([square(500, 500, 510, 510)], RED)
    canvas.fill([np.full((3, 2), np.nan)], RED)
    canvas.fill([], RED)
    canvas.mask(np.zeros((60, 80), bool), RED, 1.0)
    assert not pixels(canvas).any()


def test_shapes_across_the_border_are_cut(canvas):
    canvas.fill([square(-1e5, -1e5, 1e5, 1e5)], RED)
    assert (pixels(canvas)[..., 0] == 255).all()


def test_a_mask_of_another_resolution_is_stretched(canvas):
    mask = np.zeros((30, 40), bool)
    mask[10:20, 5:15] = True
    canvas.mask(mask, RED, 1.0)
    red = pixels(canvas)[..., 0]
    assert (red[22:38, 12:28] == 255).all()
    assert red[:17].sum() == red[:, 34:].sum() == 0


def test_a_masks_contour_runs_inside_its_edge(canvas):
    mask = np.zeros((60, 80), bool)
    mask[10:50, 10:70] = True
    canvas.mask(mask, RED, 0.0, outline=BLUE)
    blue = pixels(canvas)[..., 2]
    assert blue[10, 10:70].min() > 200
    assert blue[20:40, 20:60].sum() == 0
    assert blue[:9].sum() == 0


def test_a_ring_is_empty_and_a_dot_is_not(canvas):
    canvas.disc(np.array([20.0, 30.0]), 8, RED)
    canvas.disc(np.array([60.0, 30.0]), 8, RED, hollow=True)
    red = pixels(canvas)[..., 0]
    assert red[30, 20] == 255
    assert red[30, 60] == 0
    assert red[30, 53:56].max() == 255


def test_text_stays_on_its_plate(canvas):
    height, width = canvas.text_size("balloon")
    canvas.text("balloon", (5, 5), (255, 255, 255), (10, 200, 10))
    touched = pixels(canvas).any(2)
    rows, columns = np.nonzero(touched)
    assert rows.min() >= 4
    assert rows.max() <= 5 + height
    assert columns.max() <= 5 + width
    assert (pixels(canvas)[touched].min(1) > 150).sum() > 10  # white letters


def test_sizes_follow_the_image():
    small, large = (Canvas(np.zeros((side, side, 3), np.uint8)) for side in (100, 2000))
    assert 10 <= small.font_size < large.font_size <= 64
    assert small.line_width < large.line_width


def test_the_given_array_is_not_changed():
    image = np.zeros((20, 20, 3), np.uint8)
    Canvas(image).fill([square(0, 0, 20, 20)], RED)
    assert not image.any()
