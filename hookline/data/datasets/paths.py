"""Where the data lies: ``$HOOKLINE_DATASETS``, or the folder ``datasets`` below the current one."""

import os
from pathlib import Path

from hookline.io import PathManager

VARIABLE = "HOOKLINE_DATASETS"


def datasets_root() -> Path:
    """Return the folder that holds all data sets, as the environment says at this moment."""
    return Path(os.environ.get(VARIABLE) or "datasets").expanduser()


def join_root(root: str | Path, name: str) -> str:
    """Put a file name below a folder; absolute paths and ``scheme://`` addresses stay what they are."""
    return name if "://" in name else os.path.join(root, name)


def require_file(path: str | Path, what: str) -> str:
    """Return the path if something is there.

    Args:
        path: a local path or an address that the path manager knows.
        what: what the file is, for the message, such as ``"annotations of 'balloon_train'"``.

    Raises:
        FileNotFoundError: if nothing is there; says where the data root points and which variable sets it.
    """
    if PathManager.exists(str(path)):
        return str(path)
    raise FileNotFoundError(f"{what}: no file {_shown(path)}{_missing_part(path)}. {_explain_root()}")


def _shown(path: str | Path) -> str:
    return str(path) if "://" in str(path) else os.path.abspath(path)


def _missing_part(path: str | Path) -> str:
    """Say where the path stops existing; most often the root is wrong, not the last part."""
    if "://" in str(path):
        return ""
    folder = Path(os.path.abspath(path)).parent
    missing = None
    while not folder.is_dir() and folder != folder.parent:
        missing, folder = folder, folder.parent
    return "" if missing is None else f" (there is no folder {missing})"


def _explain_root() -> str:
    value = os.environ.get(VARIABLE)
    root = os.path.abspath(datasets_root())
    if value:
        return f"${VARIABLE} is {value!r}, so data sets are looked for in {root}"
    return f"${VARIABLE} is not set, so data sets are looked for in {root}; set it to the folder that holds them"
