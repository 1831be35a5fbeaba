import numpy as np
from PIL import Image, ImageDraw

from hookline.data.datasets.synthetic_outline import outlines, signed_area, simplified


def test_a_rectangle_has_its_own_corners():
    mask = np.zeros((8, 9), bool)
    mask[2:5, 3:9] = True
    (loop,) = outlines(mask)
    assert signed_area(loop) == 18
    assert loop.min(0).tolist() == [3, 2]
    assert loop.max(0).tolist() == [9, 5]


def test_areas_equal_pixel_counts_and_parts_come_largest_first():
    rng = np.random.default_rng(0)
    mask = rng.random((30, 40)) < 0.5
    mask[:, 20] = False
    mask[1:29, 1:19] = True
    loops = outlines(mask)
    areas = [signed_area(loop) for loop in loops]
    assert areas == sorted(areas, reverse=True)
    assert areas[0] >= 28 * 18
    assert all(area > 0 for area in areas)


def test_holes_and_empty_masks():
    mask = np.ones((9, 9), bool)
    mask[3:6, 3:6] = False
    assert [signed_area(loop) for loop in outlines(mask)] == [81]
    assert outlines(np.zeros((4, 4), bool)) == []


def test_few_points_keep_the_shape():
    y, x = np.mgrid[:120, :160] + 0.5
    mask = ((x - 70) / 50) ** 2 + ((y - 60) / 35) ** 2 < 1
    mask &= ~((x - 120) ** 2 + (y - 50) ** 2 < 30**2)
    polygon = simplified(outlines(mask)[0], 32)
    assert polygon.shape == (32, 2)
    drawn = Image.new("L", (1600, 1200))
    ImageDraw.Draw(drawn).polygon((polygon * 10).ravel().tolist(), fill=255)
    again = np.asarray(drawn.resize((160, 120), Image.Resampling.BOX)) > 127
    assert (again & mask).sum() / (again | mask).sum() > 0.96
