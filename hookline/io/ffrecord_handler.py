"""Files inside of packed folders, under their usual paths and under ``ffrecord://``.

This module is imported with the path manager, so it loads the reader, and opens packs, only when a path leads there.
"""

import io
import os
from collections.abc import Iterator
from typing import IO, Any

from iopath.common.file_io import NativePathHandler, PathHandler
from iopath.common.file_io import PathManager as _PathManager

from hookline.io.ffrecord_mounts import (
    VARIABLE,
    Mount,
    Place,
    cache_of,
    extract,
    mounted,
    open_pack,
    parse_mounts,
)
from hookline.io.paths import PathManager

__all__ = ["FFRecordHandler", "MountHandler", "register_ffrecord_handler", "unregister_ffrecord_handlers"]

SCHEME = "ffrecord://"


class _PackHandler(PathHandler):
    """What reading from packs has in common, wherever a path says which pack it is."""

    def _places(self, path: str) -> Iterator[Place]:
        """Go through the packs in which a path may be."""
        raise NotImplementedError

    def _find(self, path: str | os.PathLike[str]) -> Place | None:
        return next((place for place in self._places(os.fspath(path)) if place.pack.exists(place.inner)), None)

    def _require(self, path: str) -> Place:
        place = self._find(path)
        if place is None:
            raise FileNotFoundError(self._missing(path))
        return place

    def _missing(self, path: str) -> str:
        place = next(self._places(os.fspath(path)), None)
        return (
            f"{path}: there is no such pack" if place is None else f"{path}: {place.inner!r} is not in {place.pack!r}"
        )

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        if set(mode) & set("wax+"):
            raise io.UnsupportedOperation(f"{path} is inside of a pack and can only be read, not opened with {mode!r}")
        return _open_place(self._require(path), path, mode, **kwargs)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        self._check_kwargs(kwargs)
        return self._find(path) is not None

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        self._check_kwargs(kwargs)
        place = self._find(path)
        return place is not None and place.pack.is_file(place.inner)

    def _isdir(self, path: str, **kwargs: Any) -> bool:
        self._check_kwargs(kwargs)
        place = self._find(path)
        return place is not None and place.pack.is_dir(place.inner)

    def _ls(self, path: str, **kwargs: Any) -> list[str]:
        self._check_kwargs(kwargs)
        place = self._require(path)
        return place.pack.list(place.inner)

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        place = self._require(path)
        local = cache_of(place.pack) / place.inner
        if place.pack.is_file(place.inner):
            extract(place, local, force)
            return str(local)
        local.mkdir(parents=True, exist_ok=True)
        for name in place.pack.list(place.inner, recursive=True):
            below = Place(place.pack, f"{place.inner}/{name}".lstrip("/"))
            if place.pack.is_dir(below.inner):
                (local / name).mkdir(parents=True, exist_ok=True)
            else:
                extract(below, local / name, force)
        return str(local)


class FFRecordHandler(_PackHandler):
    """Read ``ffrecord://PACK.ffr/path/in/the/pack``, and ``ffrecord://`` before a path under a registered folder.

    ``get_local_path`` extracts a file (or a folder) once to the cache, see :func:`hookline.io.cache_folder`.

    Args:
        mounts: the registered folders.
    """

    def __init__(self, mounts: list[Mount] | None = None) -> None:
        super().__init__()
        self._mounts = [] if mounts is None else mounts

    def _get_supported_prefixes(self) -> list[str]:
        return [SCHEME]

    def _places(self, path: str) -> Iterator[Place]:
        rest = path.removeprefix(SCHEME)
        yield from mounted(self._mounts, rest)
        parts = rest.split("/")
        for i, part in enumerate(parts, start=1):
            pack = "/".join(parts[:i])
            if part.endswith(".ffr") and os.path.exists(pack):
                yield Place(open_pack(os.path.abspath(pack), True), "/".join(parts[i:]))
                return


class MountHandler(_PackHandler):
    """Read files below registered folders from their packs, if they are there, else from the disk as always.

    What is written below these folders goes to the disk.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mounts: list[Mount] = []
        self._disk = NativePathHandler()

    def _get_supported_prefixes(self) -> list[str]:
        points = {spelling for mount in self.mounts for spelling in (mount.point, mount.full)}
        return sorted(points | {f"./{point}" for point in points if not os.path.isabs(point)})

    def _places(self, path: str) -> Iterator[Place]:
        return mounted(self.mounts, path.removeprefix("./"))

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        place = None if set(mode) & set("wax+") else self._find(path)
        if place is None:
            return self._disk._open(path, mode, buffering, **kwargs)
        return _open_place(place, path, mode, **kwargs)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return super()._exists(path, **kwargs) or self._disk._exists(path, **kwargs)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return super()._isfile(path, **kwargs) or self._disk._isfile(path, **kwargs)

    def _isdir(self, path: str, **kwargs: Any) -> bool:
        return super()._isdir(path, **kwargs) or self._disk._isdir(path, **kwargs)

    def _ls(self, path: str, **kwargs: Any) -> list[str]:
        packed = super()._ls(path, **kwargs) if self._find(path) is not None else []
        on_disk = self._disk._ls(path, **kwargs) if not packed or self._disk._isdir(path) else []
        return list(dict.fromkeys(packed + on_disk))

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        if self._find(path) is None:
            return self._disk._get_local_path(path, force=force, **kwargs)
        return super()._get_local_path(path, force=force, **kwargs)

    def _copy(self, src_path: str, dst_path: str, overwrite: bool = False, **kwargs: Any) -> bool:
        return self._disk._copy(self._get_local_path(src_path), dst_path, overwrite, **kwargs)

    def _copy_from_local(self, local_path: str, dst_path: str, overwrite: bool = False, **kwargs: Any) -> bool:
        return self._disk._copy_from_local(local_path, dst_path, overwrite, **kwargs)

    def _mv(self, src_path: str, dst_path: str, **kwargs: Any) -> bool:
        return self._disk._mv(src_path, dst_path, **kwargs)

    def _symlink(self, src_path: str, dst_path: str, **kwargs: Any) -> bool:
        return self._disk._symlink(src_path, dst_path, **kwargs)

    def _mkdirs(self, path: str, **kwargs: Any) -> None:
        self._disk._mkdirs(path, **kwargs)

    def _rm(self, path: str, **kwargs: Any) -> None:
        self._disk._rm(path, **kwargs)


class _Content(io.BytesIO):
    name = ""


def _open_place(place: Place, path: str, mode: str, **options: Any) -> IO[Any]:
    """Give the content of a packed file as an open file; ``options`` are those of text files."""
    content = _Content(place.pack.read_bytes(place.inner))
    content.name = os.fspath(path)
    return content if "b" in mode else io.TextIOWrapper(content, **{"encoding": "utf-8", **options})


def register_ffrecord_handler(
    ffr_file: str | os.PathLike[str],
    ffr_prefix: str | None = None,
    local_prefix: str | os.PathLike[str] = "datasets",
    *,
    check_data: bool | str = True,
    path_manager: _PathManager | None = None,
) -> None:
    """Let paths under a folder, which need not exist, be read from a pack.

    Everything that goes through the path manager then finds ``local_prefix/ffr_prefix/x`` as ``x`` in the pack; what is
    not there is looked for on the disk. It does not matter what was imported before. Processes that are started later,
    such as data workers, know it too: it is kept in ``$HOOKLINE_FFRECORD``, which can also be set by hand, as
    ``FOLDER=PACK.ffr``, several with ``:`` between, and ``?check=once`` or ``?check=off`` at the end.

    Args:
        ffr_file: what :func:`pack_folder` wrote: a file, or a folder of parts.
        ffr_prefix: the folder below ``local_prefix`` that was packed, such as ``"coco"``; by default ``local_prefix``.
        local_prefix: where data sets lie; absolute paths to the same folder are meant as well.
        check_data: whether checksums are verified: ``True``, ``"once"`` (per sample and process) or ``False``.
        path_manager: another path manager than Hookline's; other processes do not learn of it.

    Raises:
        FFRecordError: if the file is damaged or no packed folder.
        FileNotFoundError: if it does not exist.
        ValueError: if a name cannot be kept in the environment variable.
    """
    point = os.path.normpath(os.path.join(os.fspath(local_prefix), ffr_prefix or ""))
    mount = Mount(point, os.path.abspath(point), os.path.abspath(ffr_file), check_data)
    open_pack(mount.pack, mount.check_data)
    if path_manager is None:
        if os.pathsep in str(mount) or "=" in point:
            raise ValueError(f"{mount}: neither name may hold {os.pathsep!r}, nor the folder '='")
        others = [m for m in _handler_of(PathManager).mounts if m.point != point]
        os.environ[VARIABLE] = os.pathsep.join(map(str, [*others, mount]))
    _add(PathManager if path_manager is None else path_manager, mount)


def unregister_ffrecord_handlers() -> None:
    """Forget all folders that Hookline's path manager reads from packs."""
    _handler_of(PathManager).mounts.clear()
    os.environ.pop(VARIABLE, None)
    open_pack.cache_clear()


def install() -> None:
    """Make Hookline's path manager know ``ffrecord://`` and the folders of ``$HOOKLINE_FFRECORD``."""
    _handler_of(PathManager)
    for mount in parse_mounts(os.environ.get(VARIABLE, "")):
        _add(PathManager, mount)


_HANDLERS: list[tuple[_PathManager, MountHandler]] = []


def _handler_of(manager: _PathManager) -> MountHandler:
    for known, handler in _HANDLERS:
        if known is manager:
            return handler
    handler = MountHandler()
    manager.register_handler(FFRecordHandler(handler.mounts))
    _HANDLERS.append((manager, handler))
    return handler


def _add(manager: _PathManager, mount: Mount) -> None:
    handler = _handler_of(manager)
    handler.mounts[:] = [mount, *(known for known in handler.mounts if known.point != mount.point)]
    # the longest folder first: a pack inside of another's folder goes before it
    handler.mounts.sort(key=lambda known: -len(known.full))
    manager.register_handler(handler)
