"""Which file is the newest, and which go."""

import os

import pytest
import torch

from hookline.engine.checkpoint_errors import UnsafeCheckpointError
from hookline.engine.checkpoint_files import CheckpointFolder
from hookline.engine.checkpoint_write import write_checkpoint


def write(folder, name: str, time: int, iteration: int | None = None, **more) -> None:
    """A small real checkpoint with a given time of writing."""
    state = {"model": {"w": torch.ones(2)}, "iteration": iteration, **more}
    write_checkpoint(folder / name, state)
    os.utime(folder / name, (time, time))


def tag(folder, name: str, time: int) -> None:
    CheckpointFolder(folder).tag(name)
    os.utime(folder / "last_checkpoint", (time, time))


def order(folder) -> list[str]:
    return [path.name for path in CheckpointFolder(folder).newest_first()]


def test_an_empty_or_missing_folder(tmp_path):
    for folder in (CheckpointFolder(tmp_path), CheckpointFolder(tmp_path / "none")):
        assert folder.files() == folder.newest_first() == []
        assert folder.tagged() is folder.newest_whole() is None


def test_without_a_tag_the_iteration_decides(tmp_path):
    write(tmp_path, "model_0000019.pth", 5)
    write(tmp_path, "model_0000009.pth", 9)
    write(tmp_path, "model_final.pth", 1, iteration=29)
    write(tmp_path, "model_best.pth", 1, iteration=14)
    assert order(tmp_path) == ["model_final.pth", "model_0000019.pth", "model_best.pth", "model_0000009.pth"]


def test_a_kill_between_file_and_tag(tmp_path):
    write(tmp_path, "model_0000009.pth", 10)
    tag(tmp_path, "model_0000009.pth", 11)
    write(tmp_path, "model_0000019.pth", 20)
    assert order(tmp_path) == ["model_0000019.pth", "model_0000009.pth"]


def test_files_of_an_abandoned_future_are_last(tmp_path):
    write(tmp_path, "model_0000099.pth", 10)
    write(tmp_path, "model_0000009.pth", 5)
    write(tmp_path, "model_0000019.pth", 20)
    tag(tmp_path, "model_0000019.pth", 21)
    assert order(tmp_path) == ["model_0000019.pth", "model_0000009.pth", "model_0000099.pth"]
    removed = CheckpointFolder(tmp_path).keep_newest(2, "model_0000019.pth")
    assert [path.name for path in removed] == ["model_0000099.pth"]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"none.pth", b"../model_0000009.pth", b"/etc/passwd"])
def test_a_damaged_tag_is_no_tag(tmp_path, content):
    write(tmp_path, "model_0000009.pth", 1)
    write(tmp_path, "model_0000019.pth", 1)
    (tmp_path / "last_checkpoint").write_bytes(content)
    assert CheckpointFolder(tmp_path).tagged() is None
    assert order(tmp_path)[0] == "model_0000019.pth"


def test_the_newest_whole_file_is_found_and_damaged_ones_are_named(tmp_path, caplog):
    for time, iteration in enumerate((9, 19, 29, 39)):
        write(tmp_path, f"model_{iteration:07d}.pth", time)
    tag(tmp_path, "model_0000039.pth", 10)
    newest = tmp_path / "model_0000039.pth"
    newest.write_bytes(newest.read_bytes()[:-30])
    (tmp_path / "model_0000029.pth").write_bytes(b"")
    (tmp_path / "model_0000029.pth.damaged").write_bytes(b"from an earlier accident")
    found = CheckpointFolder(tmp_path).newest_whole()
    assert found.name == "model_0000019.pth"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == [
        "last_checkpoint",
        "model_0000009.pth",
        "model_0000019.pth",
        "model_0000029.pth.damaged",
        "model_0000029.pth.damaged2",
        "model_0000039.pth.damaged",
    ]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 2
    assert "model_0000039.pth" in warnings[0]
    assert "model_0000029.pth" in warnings[1]


def test_a_damaged_final_file_falls_back_too(tmp_path):
    write(tmp_path, "model_0000019.pth", 1)
    (tmp_path / "model_final.pth").write_bytes(b"PK\x03\x04 half")
    tag(tmp_path, "model_final.pth", 3)
    assert CheckpointFolder(tmp_path).newest_whole().name == "model_0000019.pth"


def test_slim_files_are_passed_over(tmp_path):
    write(tmp_path, "model_0000009.pth", 1)
    write(tmp_path, "slim_0000019.pth", 2, meta={"slim": True})
    assert CheckpointFolder(tmp_path).newest_whole().name == "model_0000009.pth"
    assert (tmp_path / "slim_0000019.pth").exists()


def test_a_whole_file_with_code_is_no_damage(tmp_path):
    write(tmp_path, "model_0000009.pth", 1)
    torch.save({"model": {}, "x": os.system}, tmp_path / "model_0000019.pth")
    with pytest.raises(UnsafeCheckpointError, match=r"model_0000019\.pth"):
        CheckpointFolder(tmp_path).newest_whole()
    assert (tmp_path / "model_0000019.pth").exists()


def test_retention_counts_what_lies_on_the_disk(tmp_path):
    for time, iteration in enumerate((9, 19, 29, 39)):
        write(tmp_path, f"model_{iteration:07d}.pth", time)
    others = ["model_best.pth", "model_final.pth", "slim_0000009.pth", "model_12.pth", "model_0000039.pth.damaged"]
    for name in others:
        write(tmp_path, name, 0)
    tag(tmp_path, "model_0000039.pth", 10)
    folder = CheckpointFolder(tmp_path)
    assert [path.name for path in folder.keep_newest(2, "model_0000039.pth")] == [
        "model_0000019.pth",
        "model_0000009.pth",
    ]
    assert folder.keep_newest(1, "model_final.pth") == []
    assert all((tmp_path / name).exists() for name in others)


def test_retention_spares_the_new_file_and_the_tagged_one(tmp_path):
    for iteration in (9, 19, 29):
        write(tmp_path, f"model_{iteration:07d}.pth", iteration)
    tag(tmp_path, "model_0000029.pth", 50)
    removed = CheckpointFolder(tmp_path).keep_newest(1, "model_0000009.pth")
    assert [path.name for path in removed] == ["model_0000019.pth"]
