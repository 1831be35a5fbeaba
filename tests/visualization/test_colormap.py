import itertools

import numpy as np
import pytest
import torch

from hookline.visualization.colormap import class_color, class_colors, instance_color, parse_color, readable_on


def test_a_class_keeps_its_colour_however_many_there_are():
    assert class_colors(80)[:5] == class_colors(5)
    assert class_color(0) == (230, 40, 60)


def test_colours_of_80_classes_differ():
    colors = np.array(class_colors(80), float)
    nearest = min(np.abs(a - b).sum() for a, b in itertools.combinations(colors, 2))
    assert nearest > 40
    first = min(np.abs(a - b).sum() for a, b in itertools.combinations(colors[:20], 2))
    assert first > 80


def test_shades_start_with_the_colour_itself_and_stay_near():
    color = class_color(1)
    shades = [instance_color(color, number) for number in range(6)]
    assert shades[0] == color
    assert len(set(shades)) == 6
    assert all(np.abs(np.subtract(shade, color)).max() < 130 for shade in shades)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((1, 2, 3), (1, 2, 3)),
        ([0.0, 0.5, 1.0], (0, 128, 255)),
        ("#ff8000", (255, 128, 0)),
        (np.array([9, 8, 7], np.uint8), (9, 8, 7)),
        (torch.tensor([255, 0, 0]), (255, 0, 0)),
    ],
)
def test_colours_in_many_forms(given, expected):
    assert parse_color(given) == expected


@pytest.mark.parametrize("wrong", ["red", (1, 2), 7, (0, 0, 300), (-1, 0, 0), None])
def test_what_is_no_colour_is_refused(wrong):
    with pytest.raises(ValueError, match="colour"):
        parse_color(wrong)


def test_text_contrasts_with_its_plate():
    assert readable_on((255, 255, 0)) == (0, 0, 0)
    assert readable_on((20, 20, 120)) == (255, 255, 255)
