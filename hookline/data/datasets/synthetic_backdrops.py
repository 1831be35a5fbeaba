"""What stands behind the generated balloons: skies, rooms, lawns, walls, nights, water, out-of-focus scenery.

A canvas is a float32 array (H, W, 3), RGB in 0..255. Every draw comes from the generator that is handed in.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Canvas = npt.NDArray[np.float32]
Rng = np.random.Generator


def random_color(rng: Rng, low: float = 20, high: float = 235, grey: float = 0.3) -> npt.NDArray[np.float32]:
    """Return a colour (3,), drawn towards grey by a random amount that is ``grey`` on average."""
    color = rng.uniform(low, high, 3)
    return (color + (color.mean() - color) * min(rng.uniform(0, 2 * grey), 1)).astype(np.float32)


def smooth_noise(rng: Rng, size: tuple[int, int], cells: float) -> npt.NDArray[np.float32]:
    """Return a smooth random field (H, W) around 0, with about ``cells`` bumps along the longer side, within -1..1."""
    height, width = size
    step = max(size) / cells
    grid = rng.uniform(-1, 1, (max(round(height / step), 1) + 1, max(round(width / step), 1) + 1)).astype(np.float32)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def fractal_noise(rng: Rng, size: tuple[int, int], cells: float, octaves: int = 4) -> npt.NDArray[np.float32]:
    """Return noise (H, W) with detail at ``octaves`` scales, each twice as fine and half as strong, within -1..1."""
    layers = [smooth_noise(rng, size, cells * 2**k) * 0.5**k for k in range(octaves)]
    return np.sum(layers, 0, dtype=np.float32) / (2 - 0.5 ** (octaves - 1))


def backdrop(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw one of the kinds of scenery, (H, W, 3)."""
    kinds: list[tuple[float, Callable[[Rng, tuple[int, int]], Canvas]]] = [
        (0.16, sky),
        (0.20, room),
        (0.16, lawn),
        (0.12, masonry),
        (0.10, night),
        (0.12, out_of_focus),
        (0.06, studio),
        (0.04, water),
        (0.04, texture),
    ]
    weights = np.array([weight for weight, _ in kinds])
    return kinds[rng.choice(len(kinds), p=weights / weights.sum())][1](rng, size)


def gradient(size: tuple[int, int], top: npt.ArrayLike, bottom: npt.ArrayLike) -> Canvas:
    """Return a canvas that fades from the colour ``top`` to ``bottom``."""
    share = np.linspace(0, 1, size[0], dtype=np.float32)[:, None, None]
    rows = np.asarray(top, np.float32) * (1 - share) + np.asarray(bottom, np.float32) * share
    return np.repeat(rows, size[1], 1)


def sky(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw a blue, grey or evening sky, with or without clouds, sometimes above a dark horizon."""
    tops = [
        (40, 90, 190),
        (70, 140, 220),
        (150, 165, 180),
        (30, 50, 120),
        (120, 170, 215),
        (200, 205, 210),
        (60, 60, 110),
    ]
    top = np.array(tops[rng.integers(len(tops))]) + rng.normal(0, 12, 3)
    bottom = top * rng.uniform(0.6, 1) + np.array([235, 235, 230]) * rng.uniform(0.05, 0.4)
    if rng.random() < 0.15:
        bottom = np.array([240, 170, 110]) + rng.normal(0, 20, 3)
    canvas = gradient(size, top, bottom)
    if rng.random() < 0.6:
        clouds = np.clip(fractal_noise(rng, size, rng.uniform(2, 6)) * 3 + rng.uniform(-0.8, 0.6), 0, 1)[..., None]
        white = rng.uniform(150, 250) * (1 + 0.15 * smooth_noise(rng, size, 5)[..., None])
        canvas += (white - canvas) * clouds * np.float32(rng.uniform(0.4, 0.95))
    if rng.random() < 0.4:
        _skyline(rng, canvas)
    return canvas


def room(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw a wall in uneven light above a floor, with windows, doors, pictures and furniture of random colours."""
    height, width = size
    wall = random_color(rng, 60, 245, 0.6)
    canvas = gradient(size, wall * rng.uniform(0.8, 1.1), wall * rng.uniform(0.7, 1.0))
    floor = int(height * rng.uniform(0.6, 0.95))
    canvas[floor:] = random_color(rng, 30, 190, 0.5)
    if rng.random() < 0.4:  # floor boards
        canvas[floor:] *= 1 + 0.12 * np.sign(np.sin(np.arange(width) / rng.uniform(4, 12)))[:, None]
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(2, 8)):
        _panel(rng, pen, size)
    canvas = np.asarray(image, np.float32)
    light = 1 + rng.uniform(0.1, 0.45) * smooth_noise(rng, size, rng.uniform(1, 4))
    return canvas * light[..., None] + 5 * fractal_noise(rng, size, 60, 2)[..., None]


def lawn(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw grass or ground below trees, bushes or sky."""
    height = size[0]
    canvas = foliage(rng, size) if rng.random() < 0.7 else sky(rng, size)
    horizon = int(height * rng.uniform(0.3, 0.8))
    ground = [(70, 120, 40), (95, 135, 60), (120, 110, 85), (140, 135, 125), (100, 80, 60)][rng.integers(5)]
    depth = np.linspace(0.75, 1.15, height - horizon, dtype=np.float32)[:, None, None]
    grain = fractal_noise(rng, (height - horizon, size[1]), rng.uniform(30, 90), 3)[..., None]
    canvas[horizon:] = (np.array(ground, np.float32) + rng.normal(0, 10, 3)) * depth * (1 + 0.6 * grain)
    return canvas


def foliage(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw leaves in sun and shade, with bright gaps."""
    leaves = fractal_noise(rng, size, rng.uniform(5, 14), 5)[..., None]
    green = np.array([rng.uniform(30, 110), rng.uniform(70, 140), rng.uniform(15, 60)], np.float32)
    canvas = green * (0.9 + 1.3 * leaves)
    gaps = np.clip(fractal_noise(rng, size, rng.uniform(8, 25), 3)[..., None] * 6 - rng.uniform(1, 3), 0, 1)
    return canvas + (np.array([225, 235, 235], np.float32) - canvas) * gaps


def masonry(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw bricks, tiles, planks or fences: cells of jittered colour between joints."""
    height, width = size
    cell_h, cell_w = rng.uniform(8, 40), rng.uniform(14, 90)
    if rng.random() < 0.3:
        cell_h = height * 2  # planks run through
    if rng.random() < 0.3:
        cell_h, cell_w = cell_w, cell_h
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.normal(0, 0.15)
    x, y = x * np.cos(angle) + y * np.sin(angle) + 500, y * np.cos(angle) - x * np.sin(angle) + 500
    row = np.floor(y / cell_h).astype(int)
    x = x + (row % 2) * np.float32(cell_w * rng.choice([0.0, 0.5]))
    column = np.floor(x / cell_w).astype(int)
    tones = rng.normal(0, rng.uniform(0.02, 0.18), 997).astype(np.float32)
    tone = tones[(row * 131 + column * 17) % 997]
    joint = np.minimum(np.minimum(y % cell_h, cell_h - y % cell_h), np.minimum(x % cell_w, cell_w - x % cell_w))
    base, mortar = random_color(rng, 40, 220, 0.45), random_color(rng, 40, 220, 0.9)
    share = np.clip(joint - rng.uniform(0, 1), 0, 1)[..., None]
    grain = 1 + 0.25 * fractal_noise(rng, size, rng.uniform(20, 60), 3)[..., None]
    return ((base * (1 + tone[..., None]) * share + mortar * (1 - share)) * grain).astype(np.float32)


def night(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw darkness with lights, which are round but flat."""
    canvas = random_color(rng, 5, 50, 0.4) * (1 + 0.7 * fractal_noise(rng, size, 4)[..., None])
    image = Image.fromarray(np.clip(canvas, 0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(0, 25)):
        x, y, radius = rng.uniform(0, size[1]), rng.uniform(0, size[0]), rng.exponential(5) + 1
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=_rgb(random_color(rng, 120, 255)))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 4))), np.float32)


def out_of_focus(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw a strongly blurred scene: soft patches of any colour."""
    image = Image.fromarray(
        np.clip(foliage(rng, size) if rng.random() < 0.4 else room(rng, size), 0, 255).astype(np.uint8)
    )
    pen = ImageDraw.Draw(image)
    for _ in range(rng.integers(5, 30)):
        x, y, w, h = rng.uniform(0, size[1]), rng.uniform(0, size[0]), rng.exponential(40), rng.exponential(40)
        shape = pen.ellipse if rng.random() < 0.6 else pen.rectangle
        shape([x - w, y - h, x + w, y + h], fill=_rgb(random_color(rng, 10, 245, 0.2)))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(5, 18))), np.float32)


def studio(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw a plain ground in soft light."""
    tone = random_color(rng, 10, 250, 0.7) if rng.random() < 0.5 else np.full(3, rng.uniform(200, 255), np.float32)
    return tone * (1 + 0.15 * smooth_noise(rng, size, 1.5)[..., None])


def water(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw ripples: noise stretched along the horizon."""
    height, width = size
    ripples = fractal_noise(rng, (height, max(width // 8, 8)), rng.uniform(20, 50), 3)
    ripples = np.asarray(Image.fromarray(ripples).resize((width, height), Image.Resampling.BICUBIC))
    tone = np.array([90, 120, 145], np.float32) + rng.normal(0, 20, 3)
    return (tone * (1 + rng.uniform(0.15, 0.5) * ripples[..., None])).astype(np.float32)


def texture(rng: Rng, size: tuple[int, int]) -> Canvas:
    """Draw coloured noise at many scales: fabric, confetti, gravel."""
    layers = [fractal_noise(rng, size, rng.uniform(3, 60), 4) for _ in range(3)]
    return random_color(rng, 60, 200) + rng.uniform(30, 110) * np.stack(layers, 2)


def _panel(rng: Rng, pen: ImageDraw.ImageDraw, size: tuple[int, int]) -> None:
    """Draw a window, door, picture or cupboard: a framed rectangle, bars across it, drawers in it."""
    height, width = size
    w, h = width * rng.uniform(0.05, 0.4), height * rng.uniform(0.1, 0.7)
    x, y = rng.uniform(-w / 2, width - w / 2), rng.uniform(-h / 2, height - h / 2)
    inside = random_color(rng, 190, 255, 0.8) if rng.random() < 0.25 else random_color(rng, 15, 220, 0.4)
    frame = _rgb(random_color(rng, 15, 240, 0.6))
    pen.rectangle([x, y, x + w, y + h], fill=_rgb(inside), outline=frame, width=int(rng.integers(1, 6)))
    for share in np.arange(1, rng.integers(1, 5)) / 4:
        bar = (
            [x + share * w, y, x + share * w, y + h] if rng.random() < 0.5 else [x, y + share * h, x + w, y + share * h]
        )
        pen.line(bar, fill=frame, width=int(rng.integers(1, 4)))


def _skyline(rng: Rng, canvas: Canvas) -> None:
    """Put hills, trees or houses at the bottom of a sky, in place."""
    height, width = canvas.shape[:2]
    line = smooth_noise(rng, (1, width), rng.uniform(2, 12))[0]
    if rng.random() < 0.5:
        line = np.repeat(line[:: max(width // 12, 1)], max(width // 12, 1))[:width]  # roofs
    top = height * (rng.uniform(0.75, 0.98) + rng.uniform(0.02, 0.15) * line)
    below = np.arange(height)[:, None] > top[None]
    canvas[below] = (random_color(rng, 15, 140) * (1 + 0.4 * fractal_noise(rng, (height, width), 20)[..., None]))[below]


def _rgb(color: npt.NDArray[np.float32]) -> tuple[int, int, int]:
    red, green, blue = np.clip(color, 0, 255).astype(int).tolist()
    return red, green, blue
