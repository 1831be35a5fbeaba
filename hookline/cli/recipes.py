"""Find a recipe by path or by the name under which it is packaged."""

from pathlib import Path

from hookline import configs
from hookline.config import ConfigError
from hookline.config.errors import did_you_mean

_SUFFIXES = (".py", ".yaml", ".yml")
_SAVED = "config.yaml"
# Parts that recipes share; they are no recipes themselves.
_PARTS = "common"


def packaged_folder() -> Path:
    """Give the folder of the recipes that are installed with Hookline.

    Returns:
        An absolute path.
    """
    return Path(configs.__path__[0]).resolve()


def packaged_recipes() -> list[str]:
    """List the recipes that are installed with Hookline.

    Returns:
        Names such as ``balloon/mask_rcnn_tiny.py``, sorted.
    """
    folder = packaged_folder()
    found = [file.relative_to(folder) for file in folder.rglob("*.py") if file.name != "__init__.py"]
    return sorted(name.as_posix() for name in found if _PARTS not in name.parts)


def find_recipe(name_or_path: str | Path) -> Path:
    """Find the file that a user means by a recipe.

    Args:
        name_or_path: The path of a recipe (``.py``, which may be left out) or of a saved config (``.yaml``), the folder
            of a run that holds ``config.yaml``, or the name of a packaged recipe such as ``balloon/mask_rcnn_tiny``.
            A file in the working folder goes before a packaged recipe of the same name.

    Returns:
        The absolute path of an existing file.

    Raises:
        ConfigError: If there is no such recipe; the message names near ones.
    """
    asked = Path(name_or_path).expanduser()
    for place in (asked, packaged_folder() / asked):
        for file in (place, place.with_name(f"{place.name}.py") if place.name else place, place / _SAVED):
            if file.is_file():
                return _with_known_suffix(file)
    raise ConfigError(f"there is no recipe {str(name_or_path)!r}{_near(asked)}")


def _with_known_suffix(file: Path) -> Path:
    """Refuse files that are recipes by no means.

    Raises:
        ConfigError: If the file's suffix is unknown.
    """
    if file.suffix not in _SUFFIXES:
        raise ConfigError(f"{file} is no recipe: a recipe ends in .py and a saved config in .yaml")
    return file.resolve()


def _near(asked: Path) -> str:
    """Name recipes like the one asked for: beside where it should be, and packaged ones by name or by whole path."""
    beside = [f for f in asked.parent.glob("*") if f.suffix in _SUFFIXES] if asked.parent.is_dir() else []
    packaged = packaged_recipes()
    stem = asked.as_posix().removesuffix(".py")
    whole = did_you_mean(stem, [*(name.removesuffix(".py") for name in packaged), *(str(f) for f in beside)])
    if "did you mean" in whole:
        return whole
    same_name = [name for name in packaged if Path(name).stem == asked.stem]
    if same_name:
        return f"; did you mean {' or '.join(map(repr, same_name))}?"
    return f"; packaged recipes: {', '.join(packaged)}" if packaged else ""
