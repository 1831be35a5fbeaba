"""Where to write the labels of boxes: beside their object, inside the image, not over each other."""

from collections.abc import Iterator, Sequence

__all__ = ["place_label"]

Rectangle = tuple[float, float, float, float]
"""x0, y0, x1, y1."""


def place_label(
    size: tuple[float, float], box: Rectangle, image_size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Find the place of one label.

    The usual places at the box's corners are tried first, then places sliding along its left and right side; the first
    free one is taken, or the one that covers least of the others when all are occupied.

    Args:
        size: height and width of the label, pixels.
        box: of the object that the label belongs to.
        image_size: (height, width); the label stays inside (a label wider than the image starts at its left edge).
        taken: where labels were placed before.

    Returns:
        The label's rectangle.
    """
    best, least = None, float("inf")
    for corner in _corners(size, box):
        place = _inside(corner, size, image_size)
        covered = sum(_overlap(place, other) for other in taken)
        if covered < least:
            best, least = place, covered
        if covered == 0:
            break
    assert best is not None  # there is always a first corner
    return best


def _corners(size: tuple[float, float], box: Rectangle) -> Iterator[tuple[float, float]]:
    height, width = size
    x0, y0, x1, y1 = box
    yield x0, y0 - height  # above, then inside at the top, below, inside at the bottom; then the same at the right
    yield x0, y0
    yield x0, y1
    yield x0, y1 - height
    yield x1 - width, y0 - height
    yield x1 - width, y0
    yield x1 - width, y1
    yield x1 - width, y1 - height
    y = y0
    while y < y1 - height:
        yield x0, y
        yield x1 - width, y
        yield x1, y
        yield x0 - width, y
        y += height


def _inside(corner: tuple[float, float], size: tuple[float, float], image_size: tuple[int, int]) -> Rectangle:
    x = max(min(corner[0], image_size[1] - size[1]), 0.0)
    y = max(min(corner[1], image_size[0] - size[0]), 0.0)
    return x, y, x + size[1], y + size[0]


def _overlap(a: Rectangle, b: Rectangle) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0
