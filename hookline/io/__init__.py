"""Where bytes live: paths and atomic files."""

from hookline.io.atomic import atomic_open, remove_leftovers
from hookline.io.paths import PathManager, cache_folder

__all__ = ["PathManager", "atomic_open", "cache_folder", "remove_leftovers"]
