"""Paint one balloon: outline, shading as of a thin rubber skin, highlights, prints, knot.

The outline in coordinates along the balloon's own axes (v points to the knot, both within -1..1) is
``|u| = (1 - v^2)^e(v)`` with e = 1/2 (an ellipse) on the round side and 1/2 + taper towards the knot.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hookline.data.datasets.synthetic_backdrops import Canvas, Rng

Field = npt.NDArray[np.float32]

# Hues of rubber, red to gold, as people buy them; the last are white, black, silver and gold.
_COLORS = np.array(
    [
        (205, 20, 30), (235, 40, 60), (240, 90, 160), (250, 165, 195), (225, 30, 140), (120, 40, 150), (175, 140, 215),
        (25, 45, 150), (25, 100, 205), (120, 185, 235), (20, 160, 160), (10, 110, 60), (70, 175, 60), (170, 215, 50),
        (250, 220, 40), (245, 240, 130), (245, 140, 25), (240, 100, 30), (245, 240, 235), (25, 25, 30), (185, 190, 195),
        (205, 165, 85),
    ],
    np.float32,
)  # fmt: skip


@dataclass(frozen=True)
class Light:
    """How a scene is lit.

    Attributes:
        direction: unit vector (x, y, z) towards the light, z to the viewer.
        ambient: share of light from everywhere, 0..1.
        tint: colour (3,) of the light, about 1.
    """

    direction: npt.NDArray[np.float64]
    ambient: float
    tint: npt.NDArray[np.float64]

    @staticmethod
    def draw(rng: Rng) -> "Light":
        """Draw the light of a scene, mostly from above."""
        direction = np.array([rng.normal(0, 0.6), -abs(rng.normal(0.5, 0.4)), rng.uniform(0.3, 1.1)])
        return Light(direction / np.linalg.norm(direction), rng.uniform(0.42, 0.85), rng.normal(1, 0.06, 3))


@dataclass(frozen=True)
class Balloon:
    """One balloon's place and looks; lengths in pixels, angles in radians.

    Attributes:
        center: x, y.
        radius: half its width.
        stretch: length over width.
        angle: 0 hangs the knot straight down, positive turns it to the left.
        taper: 0 (ellipse) to 0.5 (pointed at the knot).
        color: of the rubber, (3,) in 0..255.
        clarity: share of the background that shines through its middle, 0..1.
        gloss: strength of the sharp highlights, 0..1.
        knot: whether the knot is seen.
        print_kind: "" (none), "dots", "stripes", "face" or "writing".
    """

    center: tuple[float, float]
    radius: float
    stretch: float
    angle: float
    taper: float
    color: npt.NDArray[np.float32]
    clarity: float
    gloss: float
    knot: bool
    print_kind: str

    @staticmethod
    def draw(
        rng: Rng, center: tuple[float, float], radius: float, color: npt.NDArray[np.float32], tilt: float
    ) -> "Balloon":
        """Draw the looks of a balloon; ``tilt`` is the standard deviation of its angle."""
        facing = rng.random() < 0.2  # towards or away from the camera: a disc without a knot
        return Balloon(
            center=center,
            radius=radius,
            stretch=rng.uniform(0.97, 1.06) if facing else rng.uniform(1.03, 1.32),
            angle=rng.normal(0, tilt),
            taper=0.0 if facing else rng.uniform(0.02, 0.35),
            color=color,
            clarity=rng.uniform(0.1, 0.4) if rng.random() < 0.25 else 0.0,
            gloss=rng.uniform(0.2, 1.0),
            knot=not facing,
            print_kind=str(rng.choice(["dots", "stripes", "face", "writing"])) if rng.random() < 0.16 else "",
        )

    @property
    def tail(self) -> npt.NDArray[np.float64]:
        """Where the knot sits: x, y."""
        reach = self.radius * self.stretch
        return np.array(self.center) + reach * np.array([-np.sin(self.angle), np.cos(self.angle)])


def palette(rng: Rng) -> npt.NDArray[np.float32]:
    """Return the colours (N, 3) of the balloons of one party: one, few or many."""
    number = rng.choice([1, 2, 4, 12], p=[0.25, 0.2, 0.25, 0.3])
    chosen = _COLORS[rng.choice(len(_COLORS), number, replace=False)]
    return np.clip(chosen + rng.normal(0, 10, chosen.shape), 8, 252).astype(np.float32)


def paint(rng: Rng, canvas: Canvas, balloon: Balloon, light: Light) -> npt.NDArray[np.bool_]:
    """Paint a balloon into ``canvas``, in place.

    Returns:
        Where it covers the canvas, bool (H, W).
    """
    height, width = canvas.shape[:2]
    reach = balloon.radius * balloon.stretch * 1.2 + 4
    x0, y0 = (max(int(c - reach), 0) for c in balloon.center)
    x1, y1 = min(int(balloon.center[0] + reach) + 1, width), min(int(balloon.center[1] + reach) + 1, height)
    covered = np.zeros((height, width), bool)
    if x0 >= x1 or y0 >= y1:
        return covered
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32) + np.float32(0.5)
    u, v = _own_axes(balloon, x, y)
    body, side, squared = _body(balloon, u, v)
    coverage = np.maximum(body, _knot(balloon, u, v)) if balloon.knot else body
    behind = canvas[y0:y1, x0:x1]
    skin = _shaded(rng, balloon, light, side, v, squared, behind)
    behind += (skin - behind) * coverage[..., None]
    covered[y0:y1, x0:x1] = coverage > 0.5
    return covered


def _own_axes(balloon: Balloon, x: Field, y: Field) -> tuple[Field, Field]:
    """Return u (across) and v (towards the knot), both 1 at the balloon's ends."""
    dx, dy = x - balloon.center[0], y - balloon.center[1]
    cos, sin = np.cos(balloon.angle), np.sin(balloon.angle)
    along = (dy * cos - dx * sin) / (balloon.radius * balloon.stretch)
    return ((dx * cos + dy * sin) / balloon.radius).astype(np.float32), along.astype(np.float32)


def _body(balloon: Balloon, u: Field, v: Field) -> tuple[Field, Field, Field]:
    """Return the coverage 0..1, u relative to the narrowing towards the knot, and the squared radius in both."""
    narrowing = np.maximum(1 - np.clip(v, 0, 1) ** 2, 1e-3) ** np.float32(balloon.taper)
    side = u / narrowing
    squared = side**2 + v**2
    coverage = np.clip((1 - np.sqrt(squared)) * balloon.radius * np.minimum(narrowing, 1) + 0.5, 0, 1)
    return coverage, side, squared


def _knot(balloon: Balloon, u: Field, v: Field) -> Field:
    """Return the coverage of the knot: a little skirt below the body."""
    size = np.float32(0.09 + 0.4 / balloon.radius)
    below = (v - (1 - 0.3 * size)) / size  # 0 at the neck, 1 at the rim
    spread = size * (0.35 + 0.55 * np.clip(below, 0, 1))
    across = np.clip((spread - np.abs(u)) * balloon.radius + 0.5, 0, 1)
    return across * np.clip((1 - np.abs(2 * below - 1)) * size * balloon.radius / 2 + 0.5, 0, 1) * (below > -0.5)


def _shaded(rng: Rng, balloon: Balloon, light: Light, side: Field, v: Field, squared: Field, behind: Canvas) -> Canvas:
    """Return the colour of the skin (h, w, 3) where the outward normal follows from the own axes."""
    z = np.sqrt(np.clip(1 - squared, 0, 1))
    cos, sin = np.cos(balloon.angle), np.sin(balloon.angle)
    across, along = np.clip(side, -1, 1), np.clip(v, -1, 1) / balloon.stretch
    normal = np.stack([across * cos - along * sin, across * sin + along * cos, z], -1).astype(np.float32)
    diffuse = np.clip(normal @ light.direction.astype(np.float32) * 0.75 + 0.25, 0, 1)
    color = _printed(rng, balloon, across, np.clip(v, -1, 1), z)
    rim = (1 - z) ** 2
    brightness = light.ambient + (1.15 - light.ambient) * diffuse - rng.uniform(0.05, 0.3) * rim
    skin = color * (brightness[..., None] * light.tint.astype(np.float32))
    if balloon.clarity:
        middle = balloon.clarity * (1 - 0.7 * rim[..., None])
        skin = skin * (1 - middle) + (0.55 * behind + 0.45 * behind * color / 255 + 0.12 * color) * middle
    shine = _highlights(rng, balloon, light, normal)
    return skin + (255 - skin) * shine[..., None]


def _printed(rng: Rng, balloon: Balloon, across: Field, along: Field, z: Field) -> Canvas:
    """Return the rubber's colour with what is printed on it."""
    color = np.broadcast_to(balloon.color, (*z.shape, 3))
    if not balloon.print_kind or balloon.radius < 10:
        return color
    ink = (
        np.full(3, 245, np.float32) if balloon.color.mean() < 130 or rng.random() < 0.4 else np.full(3, 30, np.float32)
    )
    point = np.stack([across, along, z], -1)
    if balloon.print_kind == "dots":
        spots = rng.normal(0, 1, (int(rng.integers(12, 40)), 3)).astype(np.float32)
        spots /= np.linalg.norm(spots, axis=1, keepdims=True)
        marked = (point @ spots.T).max(-1) > np.cos(rng.uniform(0.06, 0.16))
    elif balloon.print_kind == "stripes":
        marked = np.sin(np.arcsin(np.clip(along, -1, 1)) * rng.uniform(6, 14) + across * rng.uniform(-3, 3)) > 0.55
    elif balloon.print_kind == "face":
        eyes = np.minimum((across - 0.28) ** 2, (across + 0.28) ** 2) * 2.5 + (along + 0.25) ** 2 < 0.012
        smile = np.abs(np.hypot(across, along + 0.05) - 0.5) < 0.035
        marked = eyes | (smile & (along > 0.12))
    else:
        lines = [-0.25, 0.0, 0.25][: int(rng.integers(1, 4))]
        teeth = np.sin(across * rng.uniform(25, 50) + np.sin(across * 17) * 2) > -0.2
        marked = teeth & (np.abs(across) < 0.55) & np.any([np.abs(along - line) < 0.07 for line in lines], axis=0)
    return np.where((marked & (z > 0.1))[..., None], ink, color)


def _highlights(rng: Rng, balloon: Balloon, light: Light, normal: Canvas) -> Field:
    """Return the share of white, 0..1: a sharp spot at the light's mirror image, a soft one around, window panes."""
    halfway = light.direction + np.array([0, 0, 1.0])
    halfway = (halfway / np.linalg.norm(halfway)).astype(np.float32)
    facing = np.clip(normal @ halfway, 0, 1)
    shine = balloon.gloss * facing ** np.float32(rng.uniform(60, 300)) + rng.uniform(0, 0.35) * facing ** np.float32(
        rng.uniform(4, 14)
    )
    if rng.random() < 0.35:  # a window's reflection
        x, y = rng.uniform(-0.6, 0.6), rng.uniform(-0.7, 0.2)
        w, h = rng.uniform(0.05, 0.16, 2)
        inside = np.clip((w - np.abs(normal[..., 0] - x)) / 0.04 + 0.5, 0, 1) * np.clip(
            (h - np.abs(normal[..., 1] - y)) / 0.04 + 0.5, 0, 1
        )
        shine = shine + balloon.gloss * rng.uniform(0.2, 0.7) * inside
    if rng.random() < 0.4:  # light thrown back from the floor
        shine = shine + rng.uniform(0.05, 0.25) * np.clip(normal[..., 1], 0, 1) ** 4
    return np.clip(shine, 0, 0.97)
