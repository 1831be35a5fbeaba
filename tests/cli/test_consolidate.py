"""What `hookline consolidate` refuses, and how fast; that it works is in test_fully_sharded.py."""

import subprocess
import sys

import pytest

from hookline.cli.consolidate import run


@pytest.mark.parametrize(
    ("folder", "file", "words"),
    [
        ("nosuch", "x.pth", "there is no such folder"),
        ("model.pth", "x.pth", "this is a file"),
        (".", "x.bin", "ends in .pth"),
    ],
)
def test_a_wrong_call_ends_with_code_2(tmp_path, monkeypatch, capsys, folder, file, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pth").touch()
    assert run([folder, file]) == 2
    assert words in capsys.readouterr().err


def test_a_folder_without_checkpoints_ends_with_code_1(tmp_path, capsys):
    assert run([str(tmp_path), "x.pth"]) == 1
    assert "it has none" in capsys.readouterr().err


def test_a_wrong_call_does_not_wait_for_torch():
    call = "from hookline.cli.consolidate import run; run(['nosuch', 'x.pth'])"
    code = f"import sys; {call}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
