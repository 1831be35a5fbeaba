"""Colours for classes: distinct from each other, and the same for the same class index in every run and process."""

import colorsys
import functools

import numpy as np

__all__ = ["Color", "class_color", "class_colors", "instance_color", "parse_color", "readable_on"]

Color = tuple[int, int, int]
"""Red, green, blue in 0..255."""

# Twenty hues named by eye, ordered so that neighbours in the list (the common case: few classes) differ most.
_FIRST: tuple[Color, ...] = (
    (230, 40, 60),
    (40, 130, 235),
    (60, 185, 70),
    (255, 165, 0),
    (165, 70, 220),
    (0, 200, 200),
    (245, 75, 190),
    (190, 215, 30),
    (150, 90, 40),
    (255, 225, 60),
    (85, 95, 200),
    (0, 130, 110),
    (255, 145, 135),
    (130, 205, 255),
    (140, 15, 65),
    (165, 240, 165),
    (125, 130, 15),
    (215, 180, 255),
    (255, 105, 30),
    (20, 60, 125),
)
_BRIGHTNESS = np.array([0.299, 0.587, 0.114])  # of red, green, blue
_MOST = 1024
_GOLDEN_RATIO = 0.61803398875


@functools.cache
def class_color(index: int) -> Color:
    """Return the colour of class number ``index``.

    The first twenty are chosen by eye; each one after them is the colour that is farthest from all before it.

    Args:
        index: any integer; negative ones (an unknown class) are grey. From 1024 on, colours come again.
    """
    if index < 0:
        return (160, 160, 160)
    if index < len(_FIRST):
        return _FIRST[index]
    return _palette(128 if index < 128 else _MOST)[index % _MOST]


@functools.cache
def _palette(size: int) -> list[Color]:
    """Return ``size`` colours by farthest-point sampling; a longer list begins with the shorter one."""
    levels = np.linspace(15, 255, 17)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1).reshape(-1, 3)
    candidates = candidates[candidates @ _BRIGHTNESS > 45]  # too dark to be seen as a colour
    scaled = candidates * np.sqrt(_BRIGHTNESS + 0.2)  # the eye's unequal sensitivity, moderated
    colors = list(_FIRST)
    distance = np.full(len(candidates), np.inf)
    for color in colors:
        distance = np.minimum(distance, ((scaled - np.array(color) * np.sqrt(_BRIGHTNESS + 0.2)) ** 2).sum(1))
    while len(colors) < size:
        farthest = int(distance.argmax())
        red, green, blue = (int(value) for value in candidates[farthest])
        colors.append((red, green, blue))
        distance = np.minimum(distance, ((scaled - scaled[farthest]) ** 2).sum(1))
    return colors


def class_colors(num_classes: int) -> list[Color]:
    """Return the colours of classes 0..``num_classes``-1."""
    return [class_color(index) for index in range(num_classes)]


def instance_color(color: Color, number: int) -> Color:
    """Return a shade of a class colour for the ``number``-th instance of that class in an image.

    Number 0 keeps the colour; the others shift hue and lightness a little, so that overlapping objects of one class
    can be told apart and still look like that class.
    """
    hue, lightness, saturation = colorsys.rgb_to_hls(*(value / 255 for value in color))
    step = (number * _GOLDEN_RATIO + 0.5) % 1.0 - 0.5
    lightness = min(max(lightness + 0.24 * step, 0.25), 0.85) if number else lightness
    return _to_bytes(colorsys.hls_to_rgb((hue + 0.09 * step) % 1.0, lightness, saturation))


def parse_color(color: object) -> Color:
    """Return ``color`` as bytes.

    Args:
        color: three integers in 0..255, three floats in 0..1 (matplotlib's way), or a ``#rrggbb`` string.

    Raises:
        ValueError: if it is none of them.
    """
    if isinstance(color, str) and len(color) == 7 and color.startswith("#"):
        return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
    if isinstance(color, str):
        raise ValueError(f"colour {color!r} is not of the form '#rrggbb'")
    try:
        values = [getattr(value, "item", lambda value=value: value)() for value in color]  # type: ignore[attr-defined]
    except TypeError:
        raise ValueError(f"a colour is three numbers or '#rrggbb', got {color!r}") from None
    if len(values) != 3:
        raise ValueError(f"a colour is three numbers (red, green, blue), got {color!r}")
    if all(isinstance(value, float) and 0.0 <= value <= 1.0 for value in values):
        return _to_bytes((values[0], values[1], values[2]))
    if not all(0 <= value <= 255 for value in values):
        raise ValueError(f"colour values lie in 0..255 (or are floats in 0..1), got {color!r}")
    return int(values[0]), int(values[1]), int(values[2])


def readable_on(color: Color) -> Color:
    """Return black or white, whichever contrasts more with ``color`` as background of text."""
    red, green, blue = color
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)


def _to_bytes(color: tuple[float, float, float]) -> Color:
    red, green, blue = (round(255 * value) for value in color)
    return red, green, blue
