"""Plain paths, and URLs through the cache, against a real server on this machine."""

import functools
import http.server
import threading

import pytest

from hookline.io import PathManager, cache_folder
from hookline.io.paths import CatalogHandler


class Handler(http.server.SimpleHTTPRequestHandler):
    requests: list[str]

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path.endswith("cut"):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"only this")
            return
        super().do_GET()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("HOOKLINE_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "served"
    (root / "b").mkdir(parents=True)
    (root / "weights.bin").write_bytes(b"weights")
    (root / "b" / "weights.bin").write_bytes(b"others")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(root))) as httpd:
        httpd.requests = []
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        httpd.url = f"http://127.0.0.1:{httpd.server_port}"
        yield httpd
        httpd.shutdown()
        thread.join()


def test_plain_paths(tmp_path):
    path = tmp_path / "a" / "b.txt"
    PathManager.mkdirs(str(path.parent))
    with PathManager.open(str(path), "w") as file:
        file.write("text")
    assert PathManager.isfile(str(path))
    assert PathManager.get_local_path(str(path)) == str(path)
    assert PathManager.ls(str(path.parent)) == ["b.txt"]


def test_a_url_is_downloaded_once(server):
    url = f"{server.url}/weights.bin"
    assert not list(cache_folder().rglob("weights.bin"))
    with PathManager.open(url, "rb") as file:
        assert file.read() == b"weights"
    with open(PathManager.get_local_path(url), "rb") as file:
        assert file.read() == b"weights"
    assert server.requests == ["/weights.bin"]


def test_equal_names_do_not_meet(server):
    first = PathManager.get_local_path(f"{server.url}/weights.bin")
    second = PathManager.get_local_path(f"{server.url}/b/weights.bin")
    third = PathManager.get_local_path(f"{server.url}/weights.bin?version=2")
    assert len({first, second, third}) == 3
    assert first.endswith("weights.bin")
    with open(second, "rb") as file:
        assert file.read() == b"others"


def test_exists(server):
    assert PathManager.exists(f"{server.url}/weights.bin")
    assert PathManager.isfile(f"{server.url}/weights.bin")
    assert not PathManager.exists(f"{server.url}/none.bin")
    assert server.requests == []


@pytest.mark.parametrize(("name", "message"), [("none.bin", "404"), ("cut", "9 of 1000 bytes")])
def test_a_failed_download_leaves_nothing(server, name, message):
    with pytest.raises(OSError, match=message) as error:
        PathManager.get_local_path(f"{server.url}/{name}")
    assert server.url in str(error.value)
    assert not [path for path in cache_folder().rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_a_url_cannot_be_written(server):
    with pytest.raises(ValueError, match="can only be read"):
        PathManager.open(f"{server.url}/weights.bin", "wb")


def test_a_catalogue_prefix_stands_for_another(server):
    handler = CatalogHandler(PathManager, "zoo://", f"{server.url}/")
    assert handler._exists("zoo://weights.bin")
    assert handler._isfile("zoo://b/weights.bin")
    with handler._open("zoo://weights.bin", "rb") as file:
        assert file.read() == b"weights"
    assert handler._get_local_path("zoo://weights.bin") == PathManager.get_local_path(f"{server.url}/weights.bin")
