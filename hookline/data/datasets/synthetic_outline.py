"""The outline of a bitmap as a polygon with few points, as a patient annotator would click it."""

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]


def outlines(mask: npt.NDArray[np.bool_]) -> list[Points]:
    """Return the outer boundary of every part of a mask, the largest first.

    The boundary runs along the edges between pixels; pixels that touch at a corner only may end in one part or two.

    Args:
        mask: (H, W).

    Returns:
        Loops (P, 2) of x, y in pixels, clockwise as seen.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if len(rows) == 0:
        return []
    corner = np.array([columns[0], rows[0]])
    padded = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 1)
    inside = padded[1:-1, 1:-1]
    steps: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # For every side of a pixel with nothing beyond: an arrow that keeps the pixel at its right hand.
    for beyond, (x0, y0), (x1, y1) in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (1, 1)),
        (padded[2:, 1:-1], (1, 1), (0, 1)),
        (padded[1:-1, :-2], (0, 1), (0, 0)),
    ):
        for y, x in np.argwhere(inside & ~beyond).tolist():
            steps.setdefault((x + x0, y + y0), []).append((x + x1, y + y1))
    loops = []
    while steps:
        point = start = next(iter(steps))
        loop = []
        while True:
            loop.append(point)
            ends = steps[point]
            following = ends.pop()
            if not ends:
                del steps[point]
            point = following
            if point == start:
                break
        loops.append(np.array(loop, np.float64) + corner)
    outer = [loop for loop in loops if signed_area(loop) > 0]
    return sorted(outer, key=signed_area, reverse=True)


def signed_area(polygon: Points) -> float:
    """Return the area of a polygon (P, 2), positive if it runs clockwise as seen (y points down)."""
    following = np.roll(polygon, -1, 0)
    return float((polygon[:, 0] * following[:, 1] - polygon[:, 1] * following[:, 0]).sum() / 2)


def simplified(loop: Points, num_points: int) -> Points:
    """Return ``num_points`` points at equal distances along a loop, whose pixel steps are smoothed before.

    Args:
        loop: (P, 2), closed (the last point is followed by the first).
        num_points: at least 3.
    """
    smooth = (
        np.roll(loop, 2, 0) + 2 * np.roll(loop, 1, 0) + 2 * loop + 2 * np.roll(loop, -1, 0) + np.roll(loop, -2, 0)
    ) / 8
    closed = np.concatenate([smooth, smooth[:1]])
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    at = np.linspace(0, travelled[-1], num_points, endpoint=False)
    return np.stack([np.interp(at, travelled, closed[:, axis]) for axis in (0, 1)], 1)
