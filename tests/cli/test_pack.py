"""``hookline pack``, ``unpack`` and ``ffr``."""

import os

import pytest

from hookline.cli.main import main


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("in/a/b")
    for name in ("in/a/x.txt", "in/y.txt", "in/a/b/z.txt"):
        (tmp_path / name).write_text(name * 10)
    return tmp_path


@pytest.mark.parametrize("split", [(), ("--split", "2")])
def test_there_and_back(work, split, capsys):
    os.symlink("nowhere", "in/link")
    assert main(["pack", "in", "x.ffr", *split]) == 0
    output = capsys.readouterr()
    assert "x.ffr: 3 files, 300 bytes, 1 left out" in output.out
    assert "in/link: a link that leads nowhere" in output.err
    assert main(["ffr", "verify", "x.ffr"]) == 0
    assert "4 samples, none damaged" in capsys.readouterr().out
    assert main(["unpack", "x.ffr", "out"]) == 0
    assert "out: 3 files" in capsys.readouterr().out
    assert (work / "out/a/b/z.txt").read_text() == "in/a/b/z.txt" * 10


def test_ls_and_stat(work, capsys):
    main(["pack", "in", "x.ffr"])
    capsys.readouterr()
    assert main(["ffr", "ls", "x.ffr"]) == 0
    assert capsys.readouterr().out.split("\n") == ["a/", "y.txt", ""]
    assert main(["ffr", "ls", "-r", "x.ffr", "a"]) == 0
    assert capsys.readouterr().out.split("\n") == ["b/", "b/z.txt", "x.txt", ""]
    assert main(["ffr", "ls", "-l", "x.ffr", "a"]) == 0
    assert capsys.readouterr().out.split("\n")[1].split() == ["100", "1", "x.txt"]
    assert main(["ffr", "ls", "x.ffr", "none"]) == 1
    assert "'none' does not exist" in capsys.readouterr().err
    assert main(["ffr", "stat", "x.ffr"]) == 0
    output = capsys.readouterr().out
    assert "samples    4, " in output
    assert "folder     3 files, 2 folders" in output


def test_damage_is_reported_with_its_path(work, capsys):
    main(["pack", "in", "x.ffr"])
    with open("x.ffr", "r+b") as file:
        file.seek(12 + 12 * 4)
        file.write(b"!")
    capsys.readouterr()
    assert main(["ffr", "verify", "x.ffr"]) == 1
    output = capsys.readouterr()
    assert "a/b/z.txt, in x.ffr: sample 0 " in output.err
    assert "1 damaged" in output.out
    assert main(["unpack", "x.ffr", "out"]) == 1
    assert not os.path.exists("out")


def test_wrong_calls(work, capsys):
    assert main(["pack", "none", "x.ffr"]) == 1
    assert "none: is no folder" in capsys.readouterr().err
    assert main(["pack", "in"]) == 2
    assert main(["ffr"]) == 2
    assert main(["ffr", "verify", "none.ffr"]) == 1
    assert main(["ffr", "--help"]) == 0
    (work / "x.ffr").write_bytes(b"\0" * 500)
    assert main(["ffr", "stat", "x.ffr"]) == 1
    assert "its writer was killed" in capsys.readouterr().err
