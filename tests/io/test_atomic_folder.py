"""Folders appear whole; what killed makers left is removed, and what made room comes back."""

import os
import subprocess
import sys

import pytest

from hookline.io import AtomicFolder, remove_folder_leftovers


def make(path, text):
    folder = AtomicFolder(path)
    (folder.temporary / "file").write_text(text)
    return folder


def test_it_appears_whole_and_replaces_an_older_one(tmp_path):
    target = tmp_path / "target"
    for text in ("one", "two"):
        folder = make(target, text)
        assert not target.exists() or (target / "file").read_text() == "one"
        assert remove_folder_leftovers(tmp_path) == []  # its maker lives
        folder.finish()
        assert (target / "file").read_text() == text
        assert os.listdir(tmp_path) == ["target"]


def test_discarding_leaves_the_older_one(tmp_path):
    make(tmp_path / "target", "one").finish()
    make(tmp_path / "target", "two").discard()
    assert os.listdir(tmp_path) == ["target"]
    assert (tmp_path / "target" / "file").read_text() == "one"


def test_a_rename_that_fails_gives_the_older_one_back(tmp_path, monkeypatch):
    make(tmp_path / "target", "one").finish()
    folder = make(tmp_path / "target", "two")
    rename = os.rename

    def fail_once(source, target):
        if source == folder.temporary:
            raise OSError("no")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(OSError, match="no"):
        folder.finish()
    folder.discard()
    assert (tmp_path / "target" / "file").read_text() == "one"
    assert os.listdir(tmp_path) == ["target"]


def test_who_starts_between_the_renames_leaves_both(tmp_path, monkeypatch):
    make(tmp_path / "target", "one").finish()
    folder = make(tmp_path / "target", "two")
    rename, found = os.rename, []

    def start_another(source, target):
        if source == folder.temporary:
            found.append(remove_folder_leftovers(tmp_path))
            found.append((tmp_path / "target").exists())
        rename(source, target)

    monkeypatch.setattr(os, "rename", start_another)
    folder.finish()
    assert found == [[], False]
    assert os.listdir(tmp_path) == ["target"]
    assert (tmp_path / "target" / "file").read_text() == "two"


KILLED = """
import os, signal, sys
from pathlib import Path
from hookline.io import AtomicFolder

target, moment = Path(sys.argv[1]), sys.argv[2]
folder = AtomicFolder(target)
(folder.temporary / "file").write_text("two")
rename = os.rename
def rename_or_die(source, to):
    if source == folder.temporary:
        os.kill(os.getpid(), signal.SIGKILL)
    rename(source, to)
os.rename = rename_or_die
if moment == "filling":
    os.kill(os.getpid(), signal.SIGKILL)
folder.finish()
"""


@pytest.mark.parametrize("moment", ["filling", "between the renames"])
def test_a_killed_maker(tmp_path, moment):
    target = tmp_path / "target"
    make(target, "one").finish()
    assert subprocess.run([sys.executable, "-c", KILLED, target, moment], check=False).returncode == -9
    assert target.exists() == (moment == "filling")
    removed = remove_folder_leftovers(tmp_path)
    assert len(removed) == 1
    assert removed[0].name.endswith(".filling")
    assert os.listdir(tmp_path) == ["target"]
    assert (target / "file").read_text() == "one"


def test_no_folder_has_no_leftovers(tmp_path):
    assert remove_folder_leftovers(tmp_path / "missing") == []
