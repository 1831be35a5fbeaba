"""The path manager: plain paths, and URLs through a local cache.

`PathManager.open`, `.get_local_path`, `.exists`, `.isfile`, `.ls`, `.mkdirs` take a plain path or anything whose prefix
has a handler; `PathManager.register_handler` adds more (`ffrecord://`, S3-like stores).
"""

import hashlib
import logging
import os
import re
import shutil
from pathlib import Path
from typing import IO, Any
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from iopath.common.file_io import PathHandler, file_lock
from iopath.common.file_io import PathManager as _PathManager

from hookline.io.atomic import atomic_open

__all__ = ["CatalogHandler", "HttpHandler", "PathManager", "cache_folder"]

_logger = logging.getLogger(__name__)


def cache_folder() -> Path:
    """Return the folder of downloads: `$HOOKLINE_CACHE`, by default `~/.cache/hookline`."""
    return Path(os.environ.get("HOOKLINE_CACHE") or Path.home() / ".cache" / "hookline").expanduser()


class HttpHandler(PathHandler):
    """Read `http://` and `https://` through the cache; a file is downloaded once, whole or not at all.

    The place in the cache depends on the whole URL, so that equal file names of two hosts do not meet. Processes that
    want the same file wait for the first of them.

    Args:
        timeout_s: Longest silence of the server, in seconds.
    """

    def __init__(self, timeout_s: float = 60.0) -> None:
        super().__init__()
        self.timeout_s = timeout_s

    def _get_supported_prefixes(self) -> list[str]:
        return ["http://", "https://"]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        self._check_kwargs(kwargs)
        local = _place_in_cache(path)
        if force or not local.is_file():
            local.parent.mkdir(parents=True, exist_ok=True)
            with file_lock(str(local)):
                if force or not local.is_file():
                    self._download(path, local)
        return str(local)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        if mode not in ("r", "rb"):
            raise ValueError(f"{path} is a URL and can only be read: mode must be 'r' or 'rb', not {mode!r}")
        return open(self._get_local_path(path), mode, buffering, **kwargs)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        self._check_kwargs(kwargs)
        if _place_in_cache(path).is_file():
            return True
        try:
            with urlopen(Request(path, method="HEAD"), timeout=self.timeout_s):
                return True
        except URLError:
            return False

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return self._exists(path, **kwargs)

    def _download(self, url: str, local: Path) -> None:
        _logger.info("downloading %s to %s", url, local)
        try:
            with urlopen(url, timeout=self.timeout_s) as answer, atomic_open(local) as file:
                shutil.copyfileobj(answer, file, 1 << 20)
                announced, received = answer.headers.get("Content-Length"), file.tell()
                if announced is not None and int(announced) != received:
                    raise OSError(f"the connection ended after {received} of {announced} bytes")
        except OSError as error:
            raise OSError(f"could not download {url} to {local}: {error}") from error


class CatalogHandler(PathHandler):
    """Read names under one prefix from under another one, such as `detectron2://` from its public store.

    Args:
        manager: The path manager that reads the other prefix.
        prefix: What the names start with.
        base: What stands there instead.
    """

    def __init__(self, manager: _PathManager, prefix: str, base: str) -> None:
        super().__init__()
        self._manager, self._prefix, self._base = manager, prefix, base

    def _get_supported_prefixes(self) -> list[str]:
        return [self._prefix]

    def _translate(self, path: str) -> str:
        return self._base + path[len(self._prefix) :]

    def _get_local_path(self, path: str, force: bool = False, **kwargs: Any) -> str:
        return self._manager.get_local_path(self._translate(path), force=force, **kwargs)

    def _open(self, path: str, mode: str = "r", buffering: int = -1, **kwargs: Any) -> IO[Any]:
        return self._manager.open(self._translate(path), mode, buffering, **kwargs)

    def _exists(self, path: str, **kwargs: Any) -> bool:
        return self._manager.exists(self._translate(path), **kwargs)

    def _isfile(self, path: str, **kwargs: Any) -> bool:
        return self._manager.isfile(self._translate(path), **kwargs)


def _place_in_cache(url: str) -> Path:
    parts = urlsplit(url)
    digest = hashlib.sha256(url.encode()).hexdigest()[:16]
    name = re.sub(r"[^\w.-]", "_", os.path.basename(parts.path))[-100:] or "index"
    return cache_folder() / re.sub(r"[^\w.-]", "_", parts.netloc) / digest / name


def _make_path_manager() -> _PathManager:
    manager = _PathManager()
    manager.register_handler(HttpHandler())
    manager.register_handler(
        CatalogHandler(manager, "detectron2://", "https://dl.fbaipublicfiles.com/detectron2/"),
    )
    return manager


PathManager = _make_path_manager()
