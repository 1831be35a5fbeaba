"""What to write beside an object and in which colour to draw it, from a data set's metadata."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hookline.visualization.colormap import Color, class_color, instance_color, parse_color

__all__ = ["attribute", "class_name", "label_texts", "object_colors", "pick_color"]


def attribute(metadata: Any, key: str) -> Any:
    """Return ``metadata.key``, or None where there is no metadata or no such attribute."""
    return getattr(metadata, key, None) if metadata is not None else None


def class_name(index: int, metadata: Any, key: str = "thing_classes") -> str:
    """Return the name of a class, or its number where the metadata does not name it."""
    names = attribute(metadata, key)
    return str(names[index]) if names and 0 <= index < len(names) else str(index)


def pick_color(index: int, metadata: Any, key: str = "thing_colors") -> Color:
    """Return the metadata's colour of a class (RGB in 0..255), or our own."""
    colors = attribute(metadata, key)
    return parse_color(colors[index]) if colors and 0 <= index < len(colors) else class_color(index)


def label_texts(
    classes: Sequence[int] | None,
    metadata: Any,
    *,
    scores: Sequence[float] | None = None,
    crowd: Sequence[bool] | None = None,
) -> list[str] | None:
    """Return "name 97%" for predictions, "name" or "name (crowd)" for annotations; None if nothing is known.

    Args:
        classes: N class indices.
        metadata: with ``thing_classes``, or None.
        scores: N values in 0..1.
        crowd: N flags.
    """
    if classes is None and scores is None:
        return None
    num = len(classes) if classes is not None else len(scores or ())
    texts = [class_name(index, metadata) for index in classes] if classes is not None else [""] * num
    if scores is not None:
        texts = [f"{text} {100 * score:.0f}%".strip() for text, score in zip(texts, scores, strict=True)]
    if crowd is not None:
        texts = [f"{text} (crowd)" if many else text for text, many in zip(texts, crowd, strict=True)]
    return texts


def object_colors(classes: Sequence[int] | None, metadata: Any, *, shades: bool) -> list[Color] | None:
    """Return a colour per object from its class, or None if the classes are unknown.

    Args:
        classes: N class indices.
        metadata: with ``thing_colors``, or None.
        shades: whether objects of one class get different shades of its colour.
    """
    if classes is None:
        return None
    seen: Counter[int] = Counter()
    colors = []
    for index in classes:
        color = pick_color(index, metadata)
        colors.append(instance_color(color, seen[index]) if shades else color)
        seen[index] += 1
    return colors
