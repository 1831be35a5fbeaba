"""Files that are whole or absent."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hookline.io import atomic_open, remove_leftovers


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start_writer(path: Path) -> subprocess.Popen:
    """A process in the middle of an atomic write of `path`."""
    code = """
        import sys, time
        from hookline.io import atomic_open
        with atomic_open(sys.argv[1]) as file:
            file.write(b"half")
            file.flush()
            print("writing", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), str(path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "writing\n"
    return process


@pytest.mark.parametrize(("mode", "content"), [("wb", b"\x00\xff"), ("w", "äöü\n")])
def test_what_was_written_is_read(tmp_path, mode, content):
    target = tmp_path / "file.bin"
    with atomic_open(target, mode) as file:
        file.write(content)
        assert names(tmp_path) != ["file.bin"]
    assert names(tmp_path) == ["file.bin"]
    assert (target.read_bytes() if mode == "wb" else target.read_text("utf-8")) == content


def test_a_failing_block_keeps_the_old_file(tmp_path):
    target = tmp_path / "file"
    target.write_text("old")

    def fail() -> None:
        with atomic_open(target, "w") as file:
            file.write("new")
            raise KeyError("in the middle")

    with pytest.raises(KeyError):
        fail()
    assert names(tmp_path) == ["file"]
    assert target.read_text() == "old"


def test_permissions_follow_the_umask(tmp_path):
    with atomic_open(tmp_path / "atomic") as file:
        file.write(b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_link_is_followed(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    with atomic_open(tmp_path / "link", "w") as file:
        file.write("text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "text"


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    with atomic_open(tmp_path / "file", "w") as first, atomic_open(tmp_path / "file", "w") as second:
        first.write("first")
        second.write("second")
    assert (tmp_path / "file").read_text() == "first"  # the outer block ends last
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("mode", ["r", "a", "x", "rb+"])
def test_other_modes_are_refused(tmp_path, mode):
    with pytest.raises(ValueError, match="'wb' or 'w'"), atomic_open(tmp_path / "file", mode):
        pass


def test_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_open(tmp_path / "none" / "file"):
        pass


def test_leftovers_of_a_killed_writer_go_and_its_file_stays(tmp_path):
    (tmp_path / "file").write_text("old")
    writer = start_writer(tmp_path / "file")
    try:
        assert len(names(tmp_path)) == 2
        assert remove_leftovers(tmp_path) == []  # it lives
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    assert len(remove_leftovers(tmp_path)) == 1
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_leftover_with_a_number_that_runs_again_is_removed(tmp_path):
    """In a container every run of a job may have the same process number."""
    leftover = tmp_path / f".file.{os.getpid()}.0123abcd.tmp"
    leftover.write_text("from the life before")
    assert remove_leftovers(tmp_path) == [leftover]


def test_own_open_file_is_no_leftover(tmp_path):
    with atomic_open(tmp_path / "file", "w") as file:
        assert remove_leftovers(tmp_path) == []
        file.write("whole")
    assert (tmp_path / "file").read_text() == "whole"


def test_other_files_are_not_touched(tmp_path):
    for name in (".hidden.tmp", "model.pth", ".file.12.tmp", "x.1.0123abcd.tmp"):
        (tmp_path / name).write_text("mine")
    assert remove_leftovers(tmp_path) == []
    assert remove_leftovers(tmp_path / "missing") == []
    assert len(names(tmp_path)) == 4


def test_a_reader_never_sees_a_half_file(tmp_path):
    target = tmp_path / "file"
    target.write_bytes(b"0" * 100_000)
    code = """
        import sys
        from hookline.io import atomic_open
        while True:
            for digit in (b"1", b"2"):
                with atomic_open(sys.argv[1]) as file:
                    for _ in range(100):
                        file.write(digit * 1000)
    """
    writer = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(target)])
    try:
        end = time.monotonic() + 2.0
        seen = set()
        while time.monotonic() < end:
            content = target.read_bytes()
            assert len(content) == 100_000
            assert len(set(content)) == 1
            seen.add(content[:1])
    finally:
        writer.kill()
        writer.wait()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["file"]
