"""Whole runs on drawn balloons: train, stop, resume, evaluate; and what a broken data set gets."""

import hashlib
import json
import shutil

import pytest
import torch

from hookline.cli.train import main
from small_runs import RECIPE, SMALL

pytestmark = pytest.mark.usefixtures("datasets")


def run(work_dir, *more):
    return main(["--config-file", RECIPE, "--work-dir", str(work_dir), *SMALL, "train.log_period=2", *more])


def digest(file):
    state = torch.load(file, weights_only=True)
    sha = hashlib.sha256()
    for name, tensor in sorted(state["model"].items()):
        sha.update(name.encode() + tensor.numpy().tobytes())
    for index, entry in sorted(state["optimizer"]["state"].items()):
        for name, value in sorted(entry.items()):
            sha.update(f"{index}{name}".encode() + torch.as_tensor(value).numpy().tobytes())
    return sha.hexdigest()


def losses(work_dir):
    lines = [json.loads(line) for line in (work_dir / "metrics.json").read_text().splitlines()]
    return [
        {k: v for k, v in line.items() if "loss" in k or k == "iteration"} for line in lines if "total_loss" in line
    ]


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    schedule = ["train.max_iter=6", "train.checkpointer.period=2", "lr_multiplier=null"]
    assert run(whole, "--no-validate", *schedule) == 0
    assert run(parts, "--no-validate", "--resume", *schedule, "train.max_iter=4") == 0  # nothing there yet: fresh
    more = ["dataloader.train.num_workers=2"]
    assert run(parts, "--no-validate", "--resume", *schedule, *more) == 0
    assert digest(parts / "model_final.pth") == digest(whole / "model_final.pth")
    assert losses(parts) == losses(whole)
    assert [line["iteration"] for line in losses(whole)] == [1, 3, 5]


def test_evaluation_of_the_saved_weights_repeats_the_numbers(tmp_path, capsys):
    pictures, raw = tmp_path / "pictures", tmp_path / "raw.json"
    assert run(tmp_path / "run", "train.max_iter=2") == 0
    work_dir = tmp_path / "run"
    for name in ("config.yaml", "env.txt", "overrides.txt", "config.py", "log.txt", "last_checkpoint"):
        assert (work_dir / name).stat().st_size > 0
    assert list((work_dir / "preview").glob("*.jpg"))
    assert list(work_dir.glob("events.out.tfevents*"))
    first = (work_dir / "inference" / "coco_instances_results.json").read_bytes()
    weights = f"train.init_checkpoint={work_dir / 'model_final.pth'}"
    assert run(tmp_path / "again", "--eval-only", "--show-dir", str(pictures), "--out", str(raw), weights) == 0
    assert (tmp_path / "again" / "inference" / "coco_instances_results.json").read_bytes() == first
    assert raw.read_bytes() == first
    assert len(list(pictures.glob("*.jpg"))) == 3
    # evaluating in the run's own folder leaves its record alone; what was kept there is a recipe
    record = (work_dir / "overrides.txt").read_text()
    assert run(work_dir, "--eval-only", weights) == 0
    assert (work_dir / "overrides.txt").read_text() == record
    assert main(["--config-file", str(work_dir / "config.yaml"), "--eval-only", weights]) == 0
    assert "copypaste" in capsys.readouterr().out


def test_a_second_run_in_the_same_folder_is_warned_of(tmp_path):
    once = ["--no-validate", "train.max_iter=1"]
    assert run(tmp_path, *once) == 0
    assert "earlier run" not in (tmp_path / "log.txt").read_text()
    assert run(tmp_path, *once) == 0
    assert "earlier run" in (tmp_path / "log.txt").read_text()


def test_a_part_that_refuses_its_arguments_is_a_wrong_recipe(tmp_path, capsys):
    assert run(tmp_path, "--no-validate", "optimizer.eps=-1") == 2
    errors = capsys.readouterr().err
    assert "while building optimizer" in errors
    assert "Traceback" not in errors


def test_a_fast_dev_run_goes_the_whole_way(tmp_path):
    assert run(tmp_path, "--fast-dev-run") == 0
    assert (tmp_path / "model_0000001.pth").is_file()
    assert (tmp_path / "inference" / "coco_instances_results.json").is_file()


def test_weights_are_taken_over_without_the_iteration(tmp_path):
    assert run(tmp_path / "a", "--no-validate", "train.max_iter=1") == 0
    assert (
        run(tmp_path / "b", "--no-validate", "train.max_iter=1", "--load-from", str(tmp_path / "a/model_final.pth"))
        == 0
    )
    assert torch.load(tmp_path / "b/model_final.pth", weights_only=True)["iteration"] == 0


def test_epochs_are_counted_in_samples(tmp_path):
    assert run(tmp_path, "--no-validate", "train.max_iter=null", "train.max_epochs=1") == 0
    assert torch.load(tmp_path / "model_final.pth", weights_only=True)["iteration"] == 3  # 7 images, 2 a batch


@pytest.fixture
def broken(drawn, tmp_path, monkeypatch):
    root = tmp_path / "broken"
    shutil.copytree(drawn, root)
    monkeypatch.setenv("HOOKLINE_DATASETS", str(root))
    return root / "balloon" / "train"


def test_a_truncated_image_is_named(broken, tmp_path, capsys):
    image = min(broken.glob("*.jpg"))
    image.write_bytes(image.read_bytes()[:300])
    assert run(tmp_path / "run", "--no-validate", "train.max_iter=8") == 1
    assert image.name in capsys.readouterr().err


def test_a_bad_sample_can_be_skipped(broken, tmp_path, capsys):
    image = min(broken.glob("*.jpg"))
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    assert run(tmp_path / "run", "--no-validate", "train.max_iter=4", "dataloader.train.on_bad_sample=skip") == 0
    assert image.name in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: min(folder.glob("*.jpg")).unlink(), ".jpg"),
        (lambda folder: shutil.rmtree(folder), "HOOKLINE_DATASETS"),
        (lambda folder: (folder / "via_region_data.json").write_text('{"a": [1, }'), "via_region_data.json"),
        (lambda folder: (folder / "via_region_data.json").write_text("{}"), "via_region_data.json"),
    ],
)
def test_a_broken_data_set_ends_the_run_before_it_trains(broken, tmp_path, capsys, damage, words):
    damage(broken)
    assert run(tmp_path / "run", "--no-validate") == 1
    errors = capsys.readouterr().err
    assert words in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "run").glob("*.pth"))


def test_a_missing_validation_set_ends_the_run_before_it_trains(broken, tmp_path, capsys):
    shutil.rmtree(broken.parent / "val")
    assert run(tmp_path / "run", "train.max_iter=1") == 1
    assert "balloon_val" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*.pth"))


def test_a_missing_evaluator_ends_the_run_before_it_trains(tmp_path, capsys):
    assert run(tmp_path / "run", "train.max_iter=1", "~dataloader.evaluator") == 2
    assert "dataloader.evaluator is missing" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob("*.pth"))


def test_another_class_count_ends_the_run_before_it_trains(tmp_path, capsys):
    assert run(tmp_path / "run", "--no-validate", "model.roi_heads.num_classes=3") == 2
    assert "model.roi_heads.num_classes=3" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"no checkpoint at all", "not"), (None, "no")],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, capsys, content, words):
    file = tmp_path / "weights.pth"
    if content is not None:
        file.write_bytes(content)
    assert run(tmp_path / "run", "--eval-only", f"train.init_checkpoint={file}") == 1
    errors = capsys.readouterr().err
    assert "weights.pth" in errors
    assert words in errors


def test_a_folder_that_cannot_be_written_is_named(tmp_path, capsys):
    file = tmp_path / "a_file"
    file.write_text("")
    assert run(file / "run", "--no-validate") == 1
    assert "train.output_dir" in capsys.readouterr().err
