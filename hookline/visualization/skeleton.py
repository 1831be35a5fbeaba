"""Keypoints as dots, and the bones between them. Axes: K keypoints."""

import functools
import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from hookline.visualization.canvas import Canvas
from hookline.visualization.colormap import Color, parse_color
from hookline.visualization.naming import attribute

__all__ = ["draw_keypoints"]

_THRESHOLD = 0.05
_LEFT, _RIGHT, _MIDDLE = (70, 220, 130), (255, 150, 40), (90, 180, 255)
_OCCLUDED = 1  # COCO's visibility of a point that is annotated although something hides it


def draw_keypoints(
    canvas: Canvas, keypoints: npt.NDArray[np.float64], color: Color, metadata: Any, *, extent: float
) -> None:
    """Draw one object's keypoints, with the bones that ``metadata.keypoint_connection_rules`` names.

    Where the metadata has names but no rules, those of a person's bones whose ends it names (as COCO calls them) are
    drawn, the left side green and the right one orange.

    Points whose third value is at most 0.05 are left out: annotations carry the visibility 0, 1 or 2 there, predictions
    a score. A visibility of exactly 1 (annotated but hidden) gives a ring instead of a dot.

    Args:
        canvas: drawn on.
        keypoints: (K, 3) x, y (canvas pixels), visibility or score.
        color: of dots.
        metadata: with ``keypoint_names`` and ``keypoint_connection_rules``, or None.
        extent: the object's size in canvas pixels; small objects get thin bones and small dots.
    """
    width = min(max(canvas.line_width * 1.4, 1.5), max(extent / 25, 1.0))
    rules = attribute(metadata, "keypoint_connection_rules")
    names = attribute(metadata, "keypoint_names") or ()
    shown = {name: point for name, point in zip(names, keypoints, strict=False) if point[2] > _THRESHOLD}
    for start, end, bone_color in _body_rules() if rules is None else rules:
        if start in shown and end in shown:
            canvas.stroke(np.stack([shown[start][:2], shown[end][:2]]), parse_color(bone_color), width)
    for x, y, visibility in keypoints:
        if visibility > _THRESHOLD and math.isfinite(x + y):
            center = np.array([x, y])
            canvas.disc(center, 1.5 * width, (255, 255, 255))
            canvas.disc(center, 1.1 * width, color, hollow=visibility == _OCCLUDED)


@functools.cache
def _body_rules() -> list[tuple[str, str, Color]]:
    """Return the bones of a person: chains along both sides, and what joins the sides."""
    chains = ("nose eye ear", "shoulder elbow wrist", "shoulder hip knee ankle")
    rules: list[tuple[str, str, Color]] = []
    for side, color in (("left", _LEFT), ("right", _RIGHT)):
        for chain in chains:
            parts = [part if part == "nose" else f"{side}_{part}" for part in chain.split()]
            rules += [(start, end, color) for start, end in itertools.pairwise(parts)]
    return rules + [(f"left_{part}", f"right_{part}", _MIDDLE) for part in ("shoulder", "hip")]
