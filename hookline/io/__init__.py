"""Where bytes live: paths, atomic files, and packs of many files (``hookline.io.ffrecord``)."""

from hookline.io.atomic import atomic_open, remove_leftovers
from hookline.io.ffrecord_handler import install as _install_ffrecord
from hookline.io.paths import PathManager, cache_folder

__all__ = ["PathManager", "atomic_open", "cache_folder", "remove_leftovers"]

_install_ffrecord()
