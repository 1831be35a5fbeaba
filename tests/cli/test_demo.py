"""The demo, on fewer pictures and steps."""

import os

from hookline.cli import demo


def test_the_demo_draws_trains_evaluates_and_says_where_to_look(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "NUM_TRAIN", 4)
    monkeypatch.setattr(demo, "NUM_VAL", 2)
    monkeypatch.delenv("HOOKLINE_DATASETS", raising=False)
    quick = ["train.max_iter=2", "dataloader.train.total_batch_size=2", "train.device=cpu"]
    quick += ["dataloader.train.num_workers=0", "dataloader.test.num_workers=0"]
    assert demo.run(["--work-dir", str(tmp_path), *quick]) == 0
    said = capsys.readouterr().out
    assert "bbox/AP50" in said.rsplit("validation pictures:", 1)[1]
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 2
    assert "HOOKLINE_DATASETS" not in os.environ


def test_a_wrong_setting_fails_the_demo(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "NUM_TRAIN", 4)
    monkeypatch.setattr(demo, "NUM_VAL", 2)
    assert demo.run(["--work-dir", str(tmp_path), "train.nosuch=1"]) == 2
