"""Smooth strokes, translucent fills and text on a Pillow image. Axes: H W pixels, P points as (x, y)."""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from hookline.visualization.colormap import Color, readable_on

__all__ = ["Canvas"]

Points = npt.NDArray[np.floating]
Bounds = tuple[float, float, float, float]

# Pillow draws with hard edges; shapes are drawn this many times larger into a stencil that is then averaged down.
_OVERSAMPLING = 3
_OVERSAMPLED_PIXELS = 4_000_000  # larger shapes look smooth anyway and would cost memory
# Where a label has letters that Pillow's built-in font lacks, the first of these that is installed draws it.
_UNICODE_FONTS = ("NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "Arial Unicode.ttf", "NotoSans-Regular.ttf")


class Canvas:
    """An image to draw on; all coordinates are in the image's pixels, whose centres lie at half integers.

    Args:
        image: (H, W, 3) uint8 RGB; it is copied.

    Attributes:
        image: the Pillow image.
        line_width: a stroke's width that suits the image's size, in pixels.
        font_size: a text height that suits the image's size, in pixels.
    """

    def __init__(self, image: npt.NDArray[np.uint8]) -> None:
        self.image = Image.fromarray(np.array(image, dtype=np.uint8, copy=True))
        side = math.sqrt(self.image.width * self.image.height)
        self.line_width = max(1.2, side / 320)
        self.font_size = round(min(max(side / 40, 10), 64))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.image.height, self.image.width

    def fill(self, polygons: Sequence[Points], color: Color, alpha: float = 1.0) -> None:
        """Fill the union of polygons, each (P, 2), with ``color`` at opacity ``alpha`` (0..1)."""

        def draw(pen: ImageDraw.ImageDraw, place: Callable[[Points], list[float]]) -> None:
            for polygon in polygons:
                pen.polygon(place(polygon), fill=255)

        self._paint(_bounds(polygons), color, alpha, draw)

    def stroke(
        self, points: Points, color: Color, width: float | None = None, *, closed: bool = False, alpha: float = 1.0
    ) -> None:
        """Draw a line through (P, 2) points, ``width`` pixels wide, back to the start if ``closed``."""
        width = self.line_width if width is None else width
        path = np.concatenate([points, points[:2]]) if closed else points  # the second point joins the corner

        def draw(pen: ImageDraw.ImageDraw, place: Callable[[Points], list[float]]) -> None:
            pen.line(place(path), fill=255, width=max(round(width * _scale_of(place)), 1), joint="curve")

        self._paint(_bounds([points], width), color, alpha, draw)

    def outline(self, points: Points, color: Color) -> None:
        """Draw a closed line that shows on any ground: in ``color``, with a thin rim of the opposite lightness."""
        self.stroke(points, readable_on(color), 1.9 * self.line_width, closed=True, alpha=0.6)
        self.stroke(points, color, closed=True)

    def disc(self, center: Points, radius: float, color: Color, *, hollow: bool = False) -> None:
        """Draw a dot, or a ring if ``hollow``, around (x, y)."""

        def draw(pen: ImageDraw.ImageDraw, place: Callable[[Points], list[float]]) -> None:
            corners = place(np.stack([center - radius, center + radius]))
            ring = max(round(0.45 * radius * _scale_of(place)), 1)
            pen.ellipse(corners, fill=0 if hollow else 255, outline=255, width=ring)

        self._paint(_bounds([center[None]], radius), color, 1.0, draw)

    def mask(self, mask: npt.NDArray[np.bool_], color: Color, alpha: float, outline: Color | None = None) -> None:
        """Fill the true pixels of ``mask``, which spans the whole canvas, whatever its own resolution.

        Args:
            mask: (H', W') bool.
            color: of the filling.
            alpha: opacity of the filling, 0..1.
            outline: colour of the contour line, drawn like :meth:`outline`; there is none if None.
        """
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows) == 0:
            return
        height, width = self.size
        scale_x, scale_y = width / mask.shape[1], height / mask.shape[0]
        margin = math.ceil(self.line_width) + 1
        left = max(math.floor(columns[0] * scale_x) - margin, 0)
        top = max(math.floor(rows[0] * scale_y) - margin, 0)
        right = min(math.ceil((columns[-1] + 1) * scale_x) + margin, width)
        bottom = min(math.ceil((rows[-1] + 1) * scale_y) + margin, height)
        part = (left / scale_x, top / scale_y, right / scale_x, bottom / scale_y)
        whole = Image.fromarray(mask.astype(np.uint8) * 255)
        stencil = whole.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=part)
        self.image.paste(color, (left, top, right, bottom), _faded(stencil, alpha))
        if outline is not None:
            rim = _faded(_contour(stencil, 1.7 * self.line_width), 0.6)
            self.image.paste(readable_on(outline), (left, top, right, bottom), rim)
            self.image.paste(outline, (left, top, right, bottom), _contour(stencil, self.line_width))

    def text_size(self, text: str) -> tuple[int, int]:
        """Return the height and width of the plate that :meth:`text` draws."""
        left, _, right, _ = _font(text, self.font_size).getbbox(text)
        return math.ceil(1.35 * self.font_size), math.ceil(right - left + 0.5 * self.font_size)

    def text(self, text: str, corner: tuple[float, float], color: Color, background: Color) -> None:
        """Write ``text`` on a plate whose top left corner is at (x, y)."""
        height, width = self.text_size(text)
        x, y = corner
        plate = np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])
        self.fill([plate], background, alpha=0.85)
        pen = ImageDraw.Draw(self.image)
        pen.text((x + width / 2, y + height / 2), text, fill=color, font=_font(text, self.font_size), anchor="mm")

    def _paint(
        self,
        bounds: Bounds,
        color: Color,
        alpha: float,
        draw: Callable[[ImageDraw.ImageDraw, Callable[[Points], list[float]]], None],
    ) -> None:
        """Colour what ``draw(pen, place)`` marks; ``place`` turns image points into the pen's coordinates."""
        height, width = self.size
        left, top = max(math.floor(bounds[0]), 0), max(math.floor(bounds[1]), 0)
        right, bottom = min(math.ceil(bounds[2]), width), min(math.ceil(bounds[3]), height)
        if left >= right or top >= bottom:
            return
        factor = _OVERSAMPLING if (right - left) * (bottom - top) <= _OVERSAMPLED_PIXELS else 1

        def place(points: Points) -> list[float]:
            return ((points - (left, top)) * factor).ravel().tolist()

        stencil = Image.new("L", ((right - left) * factor, (bottom - top) * factor))
        draw(ImageDraw.Draw(stencil), place)
        self.image.paste(color, (left, top, right, bottom), _faded(stencil.reduce(factor), alpha))


def _scale_of(place: Callable[[Points], list[float]]) -> float:
    x0, _, x1, _ = place(np.array([[0.0, 0.0], [1.0, 0.0]]))
    return x1 - x0


def _bounds(polygons: Sequence[Points], margin: float = 0.0) -> Bounds:
    """Return x0, y0, x1, y1 around all points, one pixel and ``margin`` wider on each side."""
    points = np.concatenate(polygons) if len(polygons) else np.zeros((0, 2))
    if len(points) == 0 or not np.isfinite(points).all():
        return 0.0, 0.0, 0.0, 0.0
    (x0, y0), (x1, y1) = points.min(0) - margin - 1, points.max(0) + margin + 1
    return float(x0), float(y0), float(x1), float(y1)


def _faded(stencil: Image.Image, alpha: float) -> Image.Image:
    return stencil if alpha >= 1.0 else stencil.point([round(value * alpha) for value in range(256)])


def _contour(stencil: Image.Image, width: float) -> Image.Image:
    """Return a line along the edge of a filled stencil, inside of it, about ``width`` pixels wide."""
    reach = 2 * max(round(width), 1) + 1
    framed = Image.new("L", (stencil.width + 2 * reach, stencil.height + 2 * reach))
    framed.paste(stencil, (reach, reach))
    inner = framed.filter(ImageFilter.MinFilter(reach))
    edge = np.clip(np.asarray(framed, np.int16) - np.asarray(inner, np.int16), 0, 255).astype(np.uint8)
    return Image.fromarray(edge[reach:-reach, reach:-reach])


def _font(text: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return _load_font(size, all(ord(letter) < 256 for letter in text))


@functools.cache
def _load_font(size: int, latin: bool) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for name in () if latin else _UNICODE_FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:  # not installed
            continue
    return ImageFont.load_default(size=size)
