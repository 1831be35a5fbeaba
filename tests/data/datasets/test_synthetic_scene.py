import numpy as np
import pytest

from hookline.data.datasets import synthetic_backdrops as backdrops
from hookline.data.datasets.synthetic_painting import Balloon, Light, paint
from hookline.data.datasets.synthetic_scene import draw_scene

KINDS = ["sky", "room", "lawn", "foliage", "masonry", "night", "out_of_focus", "studio", "water", "texture"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_backdrop_fills_the_canvas(kind):
    for seed in range(3):
        canvas = getattr(backdrops, kind)(np.random.default_rng(seed), (90, 120))
        assert canvas.shape == (90, 120, 3)
        assert canvas.dtype == np.float32
        assert np.isfinite(canvas).all()


def test_scenes_have_balloons_of_many_sizes_and_numbers():
    scenes = [draw_scene(np.random.default_rng([7, n])) for n in range(30)]
    numbers = {len(scene.polygons) for scene in scenes}
    assert min(numbers) == 1
    assert max(numbers) >= 8
    sides = [np.sqrt(np.ptp(p, 0).prod() / np.prod(s.image.shape[:2])) for s in scenes for p in s.polygons]
    assert min(sides) < 0.08
    assert max(sides) > 0.3
    assert all(scene.image.dtype == np.uint8 and scene.image.ndim == 3 for scene in scenes)


def test_a_balloon_covers_what_it_paints_and_shines_towards_the_light():
    rng = np.random.default_rng(0)
    red = np.array([200, 20, 30], np.float32)
    balloon = Balloon((50.0, 40.0), 20.0, 1.2, 0.0, 0.2, red, 0.0, 0.5, True, "")
    canvas = np.zeros((100, 100, 3), np.float32)
    mask = paint(rng, canvas, balloon, Light(np.array([0.0, -0.8, 0.6]), 0.5, np.ones(3)))
    assert 0.85 < mask.sum() / (np.pi * 20 * 24) < 1.05
    assert not canvas[~mask].max(-1).nonzero()[0].size > 0.15 * mask.sum()  # half-covered pixels of the edge only
    assert canvas[25, 50, 0] > canvas[58, 50, 0]
    assert canvas[mask][:, 0].mean() > 3 * canvas[mask][:, 1].mean()


def test_a_balloon_outside_the_picture_paints_nothing():
    canvas = np.zeros((50, 50, 3), np.float32)
    rng = np.random.default_rng(0)
    balloon = Balloon.draw(rng, (-200.0, 20.0), 20.0, np.full(3, 99, np.float32), 0.1)
    assert not paint(rng, canvas, balloon, Light.draw(rng)).any()
    assert not canvas.any()
