"""Colours for classes: distinct from each other, and the same for the same class index in every run and process."""

import colorsys
import functools

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
_GOLDEN_RATIO = 0.61803398875


@functools.cache
def class_color(index: int) -> Color:
    """Return the colour of class number ``index``.

    The first twenty are fixed; from there on the hue walks round the circle by the golden ratio, which never comes
    close to where it was for long, while lightness and saturation alternate over nine levels.

    Args:
        index: any integer; negative ones (an unknown class) are grey.
    """
    if index < 0:
        return (160, 160, 160)
    if index < len(_FIRST):
        return _FIRST[index]
    lightness = (0.62, 0.42, 0.78)[index % 3]
    saturation = (0.95, 0.55, 0.75)[index // 3 % 3]
    return _to_bytes(colorsys.hls_to_rgb(index * _GOLDEN_RATIO % 1.0, lightness, saturation))


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
