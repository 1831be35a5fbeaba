"""What a user hears when a recipe is wrong: key, place, and the nearest valid name."""

import difflib
from collections.abc import Iterable

_FEW = 12


class ConfigError(ValueError):
    """A recipe, an override or a saved config is wrong; the message says where and what would be right."""

    def add_place(self, place: str) -> None:
        """Add one more line that says on whose behalf the failing file was read.

        Args:
            place: The line of text, such as ``imported at recipe.py:3``.
        """
        self.args = (f"{self}\n  {place}",)


class RecipeImportError(ConfigError, ImportError):
    """An import of a recipe failed; an ``ImportError`` too, so that a recipe may try and go on without."""


def did_you_mean(word: str, options: Iterable[object], *, kind: str = "valid", likeness: float = 0.6) -> str:
    """Phrase the nearest valid names as the tail of an error message.

    Args:
        word: What was written.
        options: What would have been valid.
        kind: What to call the options when none is near and they are few enough to list.
        likeness: How near a name must be, from 0 to 1.

    Returns:
        ``"; did you mean 'a' or 'b'?"``, ``"; valid: a, b, c"``, or nothing.
    """
    names = sorted({str(option) for option in options})
    # Upper and lower case are the commonest slip, and difflib counts them as plain differences.
    by_likeness = sorted(names, key=lambda name: difflib.SequenceMatcher(None, word, name).ratio())
    by_lower = {name.lower(): name for name in by_likeness}  # of two that differ in case, the likelier one
    close = difflib.get_close_matches(word.lower(), by_lower, n=3, cutoff=likeness)
    if close:
        return "; did you mean " + " or ".join(repr(by_lower[name]) for name in close) + "?"
    if 0 < len(names) <= _FEW:
        return f"; {kind}: {', '.join(names)}"
    return ""
