"""Things in the generated scenes that are no balloons: people, furniture, poles, flags, balls' flat cousins, writing.

They are drawn twice as large on a transparent layer and shrunk, so that their edges are smooth.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from hookline.data.datasets.synthetic_backdrops import Canvas, Rng, random_color, smooth_noise

_SKIN = ((245, 205, 175), (225, 175, 140), (190, 135, 100), (140, 95, 65), (95, 60, 45))
_HAIR = ((35, 25, 20), (80, 55, 35), (150, 110, 60), (205, 170, 110), (150, 150, 150))
_FACTOR = 2


def add_clutter(rng: Rng, canvas: Canvas, amount: float, blur_px: float) -> Canvas:
    """Return the canvas with about ``amount`` things drawn over it, blurred by ``blur_px`` (standard deviation)."""
    height, width = canvas.shape[:2]
    layer = Image.new("RGBA", (width * _FACTOR, height * _FACTOR))
    pen = ImageDraw.Draw(layer)
    for _ in range(rng.poisson(amount)):
        kinds: list[Callable[[Rng, ImageDraw.ImageDraw, int, int], None]] = [
            _person,
            _person,
            _box,
            _pole,
            _disc,
            _flags,
            _writing,
            _cloth,
        ]
        kinds[rng.integers(len(kinds))](rng, pen, height * _FACTOR, width * _FACTOR)
    return _composed(rng, canvas, layer, blur_px)


def add_occluder(
    rng: Rng, canvas: Canvas, spot: tuple[float, float], extent: float
) -> tuple[Canvas, npt.NDArray[np.bool_]]:
    """Put an arm, a pole, a branch or a person's shoulder in front of ``spot``.

    Args:
        rng: the generator.
        canvas: (H, W, 3); it is left as it is.
        spot: x, y that the thing passes close by, pixels.
        extent: size of what it half hides, pixels.

    Returns:
        The new canvas and where it is covered, bool (H, W).
    """
    height, width = canvas.shape[:2]
    layer = Image.new("RGBA", (width * _FACTOR, height * _FACTOR))
    pen = ImageDraw.Draw(layer)
    x, y = (np.array(spot) + rng.uniform(-0.5, 0.5, 2) * extent) * _FACTOR
    size = extent * _FACTOR
    if rng.random() < 0.4:  # a head with shoulders from below
        _figure(rng, pen, x, max(y, 0.3 * height), size * rng.uniform(0.5, 1.2))
    else:
        angle = rng.uniform(-0.6, 0.6) + rng.choice([np.pi / 2, np.pi / 2, 0.0])
        far = 2.5 * max(height, width) * np.array([np.cos(angle), np.sin(angle)])
        color = _SKIN[rng.integers(5)] if rng.random() < 0.4 else _opaque(random_color(rng, 10, 230, 0.4))
        pen.line([x, y, x + far[0], y + far[1]], fill=color, width=max(int(size * rng.uniform(0.06, 0.22)), 2))
        radius = size * rng.uniform(0.08, 0.16)
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=color)
    covered = np.asarray(layer.getchannel("A").reduce(_FACTOR)) > 127
    return _composed(rng, canvas, layer, 0.0), covered


def draw_strings(
    canvas: Canvas, curves: list[npt.NDArray[np.floating]], color: npt.NDArray[np.float32], width_px: float
) -> Canvas:
    """Return the canvas with smooth thin lines through each curve (P, 2) of x, y in pixels."""
    factor = 3
    height, width = canvas.shape[:2]
    stencil = Image.new("L", (width * factor, height * factor))
    pen = ImageDraw.Draw(stencil)
    for curve in curves:
        pen.line((curve * factor).ravel().tolist(), fill=255, width=max(round(width_px * factor), 1))
    share = np.asarray(stencil.reduce(factor), np.float32)[..., None] / 255
    return (canvas + (color - canvas) * share).astype(np.float32)


def _composed(rng: Rng, canvas: Canvas, layer: Image.Image, blur_px: float) -> Canvas:
    height, width = canvas.shape[:2]
    layer = layer.convert("RGBa")  # colour times opacity, so that blurred edges mix with nothing dark
    if blur_px > 0.3:
        layer = layer.filter(ImageFilter.GaussianBlur(blur_px * _FACTOR))
    # Of this mode, Pillow offers the bytes but no array.
    small = np.frombuffer(layer.reduce(_FACTOR).tobytes(), np.uint8).reshape(height, width, 4).astype(np.float32)
    light = 1 + rng.uniform(0.05, 0.4) * smooth_noise(rng, (height, width), rng.uniform(3, 12))
    return (canvas * (1 - small[..., 3:] / 255) + small[..., :3] * light[..., None]).astype(np.float32)


def _person(rng: Rng, pen: ImageDraw.ImageDraw, height: int, width: int) -> None:
    head = height * min(rng.lognormal(np.log(0.05), 0.7), 0.28)
    _figure(rng, pen, rng.uniform(0, width), rng.uniform(0.2, 0.85) * height, head)


def _figure(rng: Rng, pen: ImageDraw.ImageDraw, x: float, y: float, head: float) -> None:
    """Draw a person whose head has the radius ``head`` and the centre (x, y)."""
    skin, hair = _SKIN[rng.integers(5)], _HAIR[rng.integers(5)]
    shirt, trousers = _opaque(random_color(rng, 10, 240, 0.35)), _opaque(random_color(rng, 10, 160, 0.6))
    shoulder, hip = head * rng.uniform(1.5, 2.1), head * rng.uniform(5, 6)
    legs = [x - 0.9 * shoulder, y + hip, x + 0.9 * shoulder, y + 2.1 * hip]
    pen.rectangle(legs, fill=trousers)
    pen.rounded_rectangle([x - shoulder, y + 1.25 * head, x + shoulder, y + hip], radius=head, fill=shirt)
    if rng.random() < 0.25:
        for k in np.arange(1.6, 5, 0.7):  # a striped shirt
            pen.line(
                [x - shoulder, y + k * head, x + shoulder, y + k * head], fill=trousers, width=max(int(head / 4), 1)
            )
    for side in (-1, 1):
        hand = np.array([x + side * shoulder * rng.uniform(0.8, 2.5), y + head * rng.uniform(-1, 6)])
        elbow = np.array([x + side * shoulder * rng.uniform(1.1, 1.8), y + head * rng.uniform(3, 4.5)])
        arm = [(x + side * 0.8 * shoulder, y + 1.9 * head), tuple(elbow), tuple(hand)]
        pen.line(arm, fill=shirt if rng.random() < 0.6 else skin, width=max(int(0.75 * head), 2), joint="curve")
        pen.ellipse([*(hand - 0.4 * head), *(hand + 0.4 * head)], fill=skin)
    pen.ellipse([x - 1.05 * head, y - 1.35 * head, x + 1.05 * head, y + 0.9 * head], fill=hair)
    pen.rectangle([x - 0.35 * head, y + 0.6 * head, x + 0.35 * head, y + 1.5 * head], fill=skin)
    if rng.random() < 0.8:  # seen from the front
        _face(rng, pen, x + rng.uniform(-0.3, 0.3) * head, y, head, skin)


def _face(rng: Rng, pen: ImageDraw.ImageDraw, x: float, y: float, head: float, skin: tuple[int, ...]) -> None:
    pen.ellipse([x - 0.82 * head, y - 0.95 * head, x + 0.82 * head, y + 1.15 * head], fill=skin)
    eye = max(0.1 * head, 1.0)
    for middle in (x - 0.35 * head, x + 0.35 * head):
        pen.ellipse([middle - eye, y - eye, middle + eye, y + eye], fill=(30, 25, 25))
    mouth = [x - 0.3 * head, y + 0.6 * head, x + 0.3 * head, y + 0.6 * head]
    pen.line(mouth, fill=(150, 60, 60), width=max(int(0.12 * head), 1))


def _box(rng: Rng, pen: ImageDraw.ImageDraw, height: int, width: int) -> None:
    w, h = rng.exponential(0.12, 2) * (width, height) + 6
    x, y, lean = rng.uniform(0, width), rng.uniform(0, height), rng.normal(0, 0.25)
    corners = [(x, y), (x + w, y + lean * w), (x + w - lean * h, y + lean * w + h), (x - lean * h, y + h)]
    pen.polygon(corners, fill=_opaque(random_color(rng, 10, 245, 0.3)), outline=_opaque(random_color(rng, 10, 245)))


def _pole(rng: Rng, pen: ImageDraw.ImageDraw, height: int, width: int) -> None:
    x, y, angle = rng.uniform(0, width), rng.uniform(0, height), rng.choice([0, np.pi / 2]) + rng.normal(0, 0.2)
    reach = rng.uniform(0.2, 1.5) * height * np.array([np.cos(angle), np.sin(angle)])
    line = [x - reach[0], y - reach[1], x + reach[0], y + reach[1]]
    pen.line(line, fill=_opaque(random_color(rng, 5, 245, 0.5)), width=max(int(rng.exponential(8)), 1))


def _disc(rng: Rng, pen: ImageDraw.ImageDraw, height: int, width: int) -> None:
    """Draw a plate, wheel, lamp or sign: round like a balloon, but flat, ringed or striped."""
    x, y, radius = rng.uniform(0, width), rng.uniform(0, height), height * min(rng.lognormal(np.log(0.04), 0.6), 0.2)
    squeeze = rng.uniform(0.35, 1.0) if rng.random() < 0.4 else 1.0
    colors = [_opaque(random_color(rng, 10, 250, 0.4)) for _ in range(3)]
    for k in range(int(rng.integers(1, 5))):
        r = radius * (1 - 0.23 * k)
        pen.ellipse([x - r, y - r * squeeze, x + r, y + r * squeeze], fill=colors[k % 3])
    if rng.random() < 0.3:
        for angle in np.arange(0, np.pi, np.pi / 4):
            dx, dy = radius * np.cos(angle), radius * squeeze * np.sin(angle)
            pen.line([x - dx, y - dy, x + dx, y + dy], fill=colors[2], width=2)


def _flags(rng: Rng, pen: ImageDraw.ImageDraw, height: int, width: int) -> None:
    y, slope, step = rng.uniform(0, 0.6) * height, rng.normal(0, 0.2), rng.uniform(20, 60)
    for x in np.arange(0, width, step):
        top = y + slope * x
        corners = [(x, top), (x + 0.8 * step, top + slope * step), (x + 0.4 * step, top + step)]
        pen.polygon(corners, fill=_opaque(random_color(rng, 20, 250, 0.1)))


def _writing(rng: Rng, pen: ImageDraw.ImageDraw, height: int, width: int) -> None:
    x, y, size = rng.uniform(-0.2, 0.8) * width, rng.uniform(0, height), rng.uniform(8, 60)
    color = _opaque(random_color(rng, 0, 255, 0.3))
    text = "".join(rng.choice(list("ABCDEHKLMNORSTUXabcdeghknoprstu0123456789  "), rng.integers(3, 14)))
    pen.text((x, y), text, fill=color, font_size=size)


def _cloth(rng: Rng, pen: ImageDraw.ImageDraw, height: int, width: int) -> None:
    """Draw a rounded patch without edges of its own: a bag, a cushion, a bush, a dog's back."""
    x, y, radius = rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.03, 0.25) * height
    angles = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    reach = radius * rng.uniform(0.5, 1.3, 14)
    reach = (reach + np.roll(reach, 1) + np.roll(reach, -1)) / 3
    stretch = rng.uniform(0.5, 2)
    corners = np.stack([x + stretch * reach * np.cos(angles), y + reach * np.sin(angles)], 1)
    pen.polygon(corners.ravel().tolist(), fill=_opaque(random_color(rng, 10, 235, 0.4)))


def _opaque(color: npt.NDArray[np.floating]) -> tuple[int, ...]:
    return (*np.clip(color, 0, 255).astype(int).tolist(), 255)


_THINGS: tuple[Callable[[Rng, ImageDraw.ImageDraw, int, int], None], ...] = (
    _person,
    _person,
    _box,
    _pole,
    _disc,
    _flags,
    _writing,
    _cloth,
)
