"""Compose a scene: backdrop, things, strings, balloons from back to front, things before them, the camera's faults."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from hookline.data.datasets.synthetic_backdrops import Canvas, Rng, backdrop, random_color, smooth_noise
from hookline.data.datasets.synthetic_clutter import add_clutter, add_occluder, draw_strings
from hookline.data.datasets.synthetic_outline import outlines, signed_area, simplified
from hookline.data.datasets.synthetic_painting import Balloon, Light, paint, palette

_MIN_RADIUS = 7.0
_MIN_VISIBLE = 0.35  # share of each balloon that must stay visible
_MIN_AREA = 60  # pixels of a visible balloon


@dataclass(frozen=True)
class Scene:
    """A picture and the outlines of its balloons.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        polygons: per balloon its visible outline (P, 2), x and y in whole pixels inside the image, not repeating the
            first point.
    """

    image: npt.NDArray[np.uint8]
    polygons: list[npt.NDArray[np.int64]]


def draw_scene(rng: Rng) -> Scene:
    """Draw a scene of about 320x240 to 480x360 pixels, upright or across, with at least one balloon."""
    while True:
        size = _size(rng)
        canvas = _surroundings(rng, size)
        planned = _plan(rng, size)
        canvas = _with_strings(rng, canvas, planned)
        light = Light.draw(rng)
        masks: list[npt.NDArray[np.bool_]] = []
        visible: list[npt.NDArray[np.bool_]] = []
        for balloon in planned:
            trial = canvas.copy()
            mask = paint(rng, trial, balloon, light)
            if mask.sum() < _MIN_AREA or any(
                (v & ~mask).sum() < _MIN_VISIBLE * m.sum() for v, m in zip(visible, masks, strict=True)
            ):
                continue
            canvas = trial
            visible = [v & ~mask for v in visible] + [mask]
            masks.append(mask)
        if not masks:
            continue
        if rng.random() < 0.3:
            canvas, visible = _half_hide(rng, canvas, masks, visible)
        polygons = [_polygon(v, m) for v, m in zip(visible, masks, strict=True)]
        return Scene(_photographed(rng, canvas), polygons)


def _size(rng: Rng) -> tuple[int, int]:
    long = int(rng.integers(320, 481))
    short = round(long * rng.uniform(0.66, 0.76))
    return (long, short) if rng.random() < 0.25 else (short, long)


def _surroundings(rng: Rng, size: tuple[int, int]) -> Canvas:
    canvas = backdrop(rng, size)
    blur_px = float(rng.choice([0.0, 0.0, 0.6, 1.5, 3.0]))
    if rng.random() < 0.75:
        canvas = add_clutter(rng, canvas, rng.choice([1.5, 4.0, 9.0]), blur_px)
    canvas = np.clip(canvas, 0, 255)
    if rng.random() < 0.07:  # coloured balloons in a grey picture
        canvas = np.repeat(canvas.mean(2, keepdims=True), 3, 2)
    return canvas.astype(np.float32)


def _plan(rng: Rng, size: tuple[int, int]) -> list[Balloon]:
    """Draw places, sizes and looks of the balloons, the hindmost first."""
    height, width = size
    scale = float(np.sqrt(height * width))
    colors = palette(rng)
    tilt = rng.choice([0.12, 0.3, 1.0])
    kind = rng.choice(["single", "few", "bunch", "crowd"], p=[0.32, 0.28, 0.26, 0.14])
    if kind == "single":
        radii = np.array([scale * min(rng.lognormal(np.log(0.15), 0.7), 0.45)])
        centers = rng.uniform(0.05, 0.95, (1, 2)) * (width, height)
    elif kind == "few":
        number = rng.integers(2, 5)
        radii = scale * np.clip(rng.lognormal(np.log(0.1), 0.6) * rng.lognormal(0, 0.25, number), 0, 0.3)
        centers = rng.uniform(0.02, 0.98, (number, 2)) * (width, height)
    elif kind == "bunch":
        number = rng.integers(3, 10)
        radii = scale * np.clip(rng.lognormal(np.log(0.08), 0.45) * rng.lognormal(0, 0.12, number), 0, 0.2)
        spread = radii.mean() * np.sqrt(number) * rng.uniform(0.6, 1.1)
        centers = rng.uniform(0.2, 0.8, 2) * (width, height * 0.8) + rng.normal(0, 0.75, (number, 2)) * spread
    else:
        number = rng.integers(8, 22)
        radii = scale * np.clip(rng.lognormal(np.log(0.06), 0.4) * rng.lognormal(0, 0.3, number), 0, 0.16)
        centers = rng.uniform(-0.02, 1.02, (number, 2)) * (width, height)
    return [
        Balloon.draw(
            rng, (float(x), float(y)), max(float(radius), _MIN_RADIUS), colors[rng.integers(len(colors))], tilt
        )
        for (x, y), radius in zip(centers, radii, strict=True)
    ]


def _with_strings(rng: Rng, canvas: Canvas, balloons: list[Balloon]) -> Canvas:
    """Draw the balloons' strings, straight to one hand or waving down."""
    height, width = canvas.shape[:2]
    if rng.random() < 0.35:
        return canvas
    color = np.full(3, rng.uniform(180, 250), np.float32) if rng.random() < 0.7 else random_color(rng)
    hand = np.mean([b.tail for b in balloons], 0) + np.array(
        [rng.normal(0, 0.1) * width, rng.uniform(0.15, 0.5) * height]
    )
    together = rng.random() < 0.6
    curves = []
    for balloon in balloons:
        if not balloon.knot:
            continue
        start = balloon.tail
        end = hand if together else start + np.array([rng.normal(0, 0.5), rng.uniform(2, 5)]) * balloon.radius
        share = np.linspace(0, 1, 24)[:, None]
        wave = (
            balloon.radius * rng.uniform(0, 0.25) * np.sin(share * rng.uniform(3, 12)) * share * np.array([[1.0, 0.0]])
        )
        curves.append(start + (end - start) * share + wave)
    return draw_strings(canvas, curves, color, rng.uniform(0.5, 1.2))


def _half_hide(
    rng: Rng, canvas: Canvas, masks: list[npt.NDArray[np.bool_]], visible: list[npt.NDArray[np.bool_]]
) -> tuple[Canvas, list[npt.NDArray[np.bool_]]]:
    """Put a thing before one of the balloons, if enough of every balloon stays visible."""
    rows, columns = np.nonzero(masks[rng.integers(len(masks))])
    extent = float(np.sqrt(len(rows)))
    trial, covered = add_occluder(rng, canvas, (float(columns.mean()), float(rows.mean())), extent)
    left = [v & ~covered for v in visible]
    if any(v.sum() < max(_MIN_VISIBLE * m.sum(), _MIN_AREA) for v, m in zip(left, masks, strict=True)):
        return canvas, visible
    return trial, left


def _polygon(visible: npt.NDArray[np.bool_], whole: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return the outline of what is visible, or of the whole balloon where something thin cuts it into pieces."""
    height, width = visible.shape
    parts = outlines(visible)
    if len(parts) > 1 and signed_area(parts[1]) > 0.15 * signed_area(parts[0]):
        parts = outlines(whole)
    num_points = int(np.clip(len(parts[0]) / 7, 20, 39))
    points = np.rint(simplified(parts[0], num_points)).astype(np.int64)
    return np.clip(points, 0, (width - 1, height - 1))


def _photographed(rng: Rng, canvas: Canvas) -> npt.NDArray[np.uint8]:
    """Add exposure, colour cast, vignette, blur and sensor noise."""
    height, width = canvas.shape[:2]
    share = np.clip(canvas / 255, 0, 1) ** np.float32(rng.uniform(0.75, 1.35))
    share *= np.float32(rng.uniform(0.8, 1.15)) * rng.normal(1, 0.05, 3).astype(np.float32)
    if rng.random() < 0.3:
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
        share *= (1 - rng.uniform(0.1, 0.45) * (x**2 + y**2) / 2)[..., None]
    if rng.random() < 0.3:  # light and shade across everything, balloons too
        share *= (1 + rng.uniform(0.05, 0.3) * smooth_noise(rng, (height, width), rng.uniform(2, 6)))[..., None]
    image = Image.fromarray(np.clip(share * 255, 0, 255).astype(np.uint8))
    image = image.filter(ImageFilter.GaussianBlur(float(rng.choice([0.3, 0.5, 0.8, 1.3], p=[0.4, 0.3, 0.2, 0.1]))))
    noise = rng.normal(0, rng.choice([1.0, 3.0, 7.0], p=[0.5, 0.35, 0.15]), (height, width, 3)).astype(np.float32)
    if rng.random() < 0.03:
        image = image.convert("L").convert("RGB")
    return np.clip(np.asarray(image, np.float32) + noise, 0, 255).astype(np.uint8)
