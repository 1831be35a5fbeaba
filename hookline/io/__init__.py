"""Where bytes live: paths, atomic files, and packs of many files (``hookline.io.ffrecord``)."""

from hookline.io.atomic import atomic_open, remove_leftovers
from hookline.io.atomic_folder import AtomicFolder, remove_folder_leftovers
from hookline.io.ffrecord_handler import install as _install_ffrecord
from hookline.io.paths import PathManager, cache_folder

__all__ = ["AtomicFolder", "PathManager", "atomic_open", "cache_folder", "remove_folder_leftovers", "remove_leftovers"]

_install_ffrecord()
