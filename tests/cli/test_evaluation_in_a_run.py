"""Evaluation in a run, as the settings say: periods, best checkpoints, early stopping, validation loss; refusals."""

import hashlib
import json

import pytest
import torch

import quality_parts
from hookline.cli import job
from hookline.cli.settings import load_settings
from hookline.cli.train import main, parse_arguments
from hookline.engine.hooks import CallbackHook
from small_runs import RECIPE, SMALL


@pytest.fixture
def toy(tmp_path):
    """Run the recipe of ``quality_parts``; gives the exit code and which metric was recorded when."""
    recipe = tmp_path / "recipe.py"

    def toy(*options, folder="run", more=""):
        recipe.write_text(quality_parts.RECIPE + more)
        code = main(["--config-file", str(recipe), "--work-dir", str(tmp_path / folder), *options])
        file = tmp_path / folder / "metrics.json"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        times = {}
        for line in lines:
            for name in line:
                times.setdefault(name, []).append(line["iteration"])
        return code, times

    return toy


def files(folder):
    return {path.name for path in folder.glob("*.pth")}


def test_an_evaluation_each_epoch_falls_on_its_end(toy, tmp_path):
    options = ["train.max_iter=null", "train.max_epochs=3", "train.eval_period_epochs=1", "train.log_period=1"]
    code, times = toy(*options, "train.checkpointer.period_epochs=1.5")
    assert code == 0
    assert times["toy/AP"] == [
        3,
        6,
        11,
    ]  # epochs of 3.5 steps end after 3.5, 7 and 10.5; the last one is recorded behind
    assert files(tmp_path / "run") == {"model_0000005.pth", "model_0000010.pth", "model_final.pth"}


def test_a_period_on_the_command_line_replaces_that_of_the_recipe():
    def load(*options):
        return load_settings(parse_arguments(["--config-file", RECIPE, *options])).train

    train = load("train.eval_period_epochs=5", "train.checkpointer.period_epochs=2")
    assert (train.eval_period, train.eval_period_epochs) == (None, 5)
    assert (train.checkpointer.period, train.checkpointer.period_epochs) == (None, 2)
    assert load("train.eval_period_epochs=null").eval_period == 500
    both = ("train.eval_period=null", "train.eval_period_epochs=5")
    assert load(*both).eval_period_epochs == load(*both[::-1]).eval_period_epochs == 5


def test_with_accumulation_an_epoch_has_fewer_steps(toy):
    code, times = toy("train.max_iter=8", "train.eval_period_epochs=1", "train.accumulate=2")
    assert code == 0
    assert times["toy/AP"] == [1, 3, 5, 6, 8]  # epochs of 1.75 steps end after 1.75, 3.5, 5.25, 7


@pytest.mark.parametrize("start", ["train.eval_start=5", "train.eval_start_epochs=1.4"])
def test_no_evaluation_before_the_start_nor_after_the_end(toy, start):
    code, times = toy("train.max_iter=12", "train.eval_period=2", start, "train.eval_after_train=false")
    assert code == 0
    assert times["toy/AP"] == [5, 7, 9, 11]


def test_nothing_is_built_that_is_not_asked_for(toy):
    options = ["train.max_iter=2", "train.eval_period=0", "train.eval_after_train=false", "~dataloader.evaluator"]
    code, times = toy(*options, "train.validation_loss={period: 1}", "train.checkpointer.save_best=auto")
    assert code == 0
    assert "toy/AP" not in times
    assert times["validation/total_loss"] == [0, 2]


def test_best_files_and_an_early_stop(toy, tmp_path):
    best = "train.checkpointer.save_best=[toy/distance, auto, validation/total_loss]"
    options = ["train.eval_period=4", "train.validation_loss={}", "train.early_stopping={metric: auto, patience: 2}"]
    code, times = toy(best, *options, "train.checkpointer.rule=less")
    assert code == 0
    names = ("toy_distance", "toy_AP", "validation_total_loss")
    assert files(tmp_path / "run") == {"model_final.pth", *(f"model_best_{name}.pth" for name in names)}
    content = {name: torch.load(tmp_path / "run" / f"model_best_{name}.pth", weights_only=True) for name in names}
    states = torch.load(tmp_path / "run" / "model_final.pth", weights_only=True)["hooks"]
    for name, metric in zip(names, ("toy/distance", "toy/AP", "validation/total_loss"), strict=True):
        assert content[name]["iteration"] == states[f"BestCheckpointer.{metric}"]["best_iter"]
    assert content["toy_AP"]["iteration"] == 3  # less was said to be better
    assert times["toy/AP"] == times["validation/total_loss"]
    assert times["toy/AP"][-1] < 59  # greater is better for the early stop, by its name
    assert "optimizer" in content["toy_AP"]


def test_one_metric_has_the_plain_name(toy, tmp_path):
    code, _ = toy("train.max_iter=8", "train.eval_period=4", "train.checkpointer.save_best=auto")
    assert code == 0
    assert files(tmp_path / "run") == {"model_best.pth", "model_final.pth"}


def test_slim_files_in_another_folder(toy, tmp_path):
    options = [f"train.checkpointer.dir={tmp_path / 'weights'}", "train.checkpointer.period=2"]
    slim = ["train.checkpointer.save_optimizer=false", "train.checkpointer.save_last=false"]
    code, _ = toy(*options, *slim, "train.max_iter=5", "--no-validate")
    assert code == 0
    assert not files(tmp_path / "run")
    assert files(tmp_path / "weights") == {"model_0000001.pth", "model_0000003.pth"}
    assert "cannot be resumed" in (tmp_path / "run" / "log.txt").read_text()
    assert toy(*options, "train.max_iter=5", "--no-validate", "--resume")[0] == 0
    assert toy(*options, "train.max_iter=6", "--no-validate", "--resume")[0] == 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"no checkpoint in {tmp_path / 'weights'}" in log  # only slim ones
    assert "Training from iteration 5 to 6" in log


def test_several_evaluations_have_names(toy, tmp_path):
    both = """
dataloader.test = {"easy": L(quality_parts.samples)(), "hard": L(quality_parts.samples)(count=2)}
dataloader.evaluator = {"easy": L(quality_parts.Quality)(), "hard": L(quality_parts.Quality)()}
"""
    options = ["train.max_iter=8", "train.eval_period=4", "train.checkpointer.save_best=hard/toy/AP"]
    code, times = toy(*options, more=both)
    assert code == 0
    assert times["easy/toy/AP"] == times["hard/toy/AP"] == [3, 8]
    assert files(tmp_path / "run") == {"model_best.pth", "model_final.pth"}


def test_quick_check_and_no_validation(toy, tmp_path):
    options = ["train.eval_period_epochs=5", "train.validation_loss={period_epochs: 9}", "train.early_stopping={}"]
    best = ["train.checkpointer.save_best=[auto, validation/total_loss]", "train.checkpointer.period_epochs=3"]
    code, times = toy(*options, *best, "--fast-dev-run", folder="quick")
    assert code == 0
    assert times["toy/AP"] == times["validation/total_loss"] == [2]
    assert "model_best_toy_AP.pth" in files(tmp_path / "quick")
    code, times = toy(*options, *best, "--no-validate", "train.max_iter=3", folder="none")
    assert code == 0
    assert not times.keys() & {"toy/AP", "validation/total_loss"}
    assert "--no-validate: no validation loss, no best" in (tmp_path / "none" / "log.txt").read_text()


BEST = "train.checkpointer.save_best="
SILENT = "dataloader.evaluator={_target_: quality_parts.Silent}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([BEST + "toy/APP"], "train.checkpointer.save_best='toy/APP': no metric of this run; did you mean toy/AP"),
        ([BEST + "validation/total_loss"], "come with train.validation_loss"),
        ([BEST + "validation/totl_loss", "train.validation_loss={}"], "did you mean validation/total_loss"),
        ([BEST + "toy/value", SILENT], "train.checkpointer.rule=null: the name of the metric 'toy/value' does"),
        ([BEST + "[toy/AP, toy:AP]"], "would be saved to the same file"),
        ([BEST + "3"], "train.checkpointer.save_best=3: expected null, 'auto'"),
        ([BEST + "auto", SILENT], "train.checkpointer.save_best='auto': Silent does not list its metrics"),
        (["train.checkpointer.rule=grater"], "train.checkpointer.rule='grater': did you mean greater"),
        (["train.checkpointer.save_last=1"], "train.checkpointer.save_last=1: expected true or false"),
        (["train.checkpointer.dir=3"], "train.checkpointer.dir=3: expected the path"),
        (["train.checkpointer.period=2", "train.checkpointer.period_epochs=1"], "give one, set the other null"),
        (["train.checkpointer.period_epochs=0"], "train.checkpointer.period_epochs=0: expected a number above 0"),
        (["train.eval_period=2", "train.eval_period_epochs=1"], "train.eval_period=2 and train.eval_period_epochs=1"),
        (["train.eval_period=null"], "train.eval_period=None and train.eval_period_epochs=None: give one"),
        (["train.eval_period_epochs=-1"], "train.eval_period_epochs=-1: expected a number of at least 0"),
        (["train.eval_start=-1"], "train.eval_start=-1"),
        (["train.eval_start=3", "train.eval_start_epochs=1"], "train.eval_start=3 and train.eval_start_epochs=1"),
        (["train.eval_after_train=2"], "train.eval_after_train=2: expected true or false"),
        (["train.eval_period_epochs=1", "dataloader.train._target_=quality_parts.Unmeasured"],
         "train.eval_period_epochs: Unmeasured has no epoch_length; set train.eval_period, in iterations, instead"),
        (["train.early_stopping={metric: toy/APP}"], "train.early_stopping.metric='toy/APP': no metric of this run"),
        (["train.early_stopping={patience: 0}"], "train.early_stopping.patience=0"),
        (["train.early_stopping={patiense: 3}"], "did you mean train.early_stopping.patience"),
        (["train.early_stopping={min_improvement: -1}"], "train.early_stopping.min_improvement=-1"),
        (["train.early_stopping={metric: toy/value}", SILENT], "train.early_stopping.rule=null"),
        (["train.early_stopping={}", "train.eval_period=0"], "measured at the end of the run only; set train.eval_per"),
        (["train.validation_loss=true"], "train.validation_loss=True: expected null, or a dict"),
        (["train.validation_loss={period: 1, period_epochs: 2}"], "train.validation_loss.period=1 and"),
        (["train.validation_loss={}", "~dataloader.validation"], "train.validation_loss needs dataloader.validation"),
        (["train.validation_loss={}", "dataloader.validation={_target_: quality_parts.Stream}"], "a Stream never ends"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_the_first_step(toy, tmp_path, capsys, options, words):
    code, times = toy("train.max_iter=4", *options)
    assert code == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not times
    assert not files(tmp_path / "run")


def test_a_metric_that_could_not_be_checked_is_warned_of(toy, tmp_path):
    code, _ = toy(
        "train.max_iter=4", "train.eval_period=2", SILENT, BEST + "toy/APP", "train.checkpointer.rule=greater"
    )
    assert code == 0
    assert "no metric 'toy/APP' to choose the best checkpoint by; there are: " in (tmp_path / "run/log.txt").read_text()


def digest(trainer):
    """Hash parameters, gradients, buffers (also those that are not saved) and the optimizer's state."""
    sha = hashlib.sha256()
    for name, parameter in trainer.model.named_parameters():
        sha.update(name.encode() + parameter.detach().numpy().tobytes() + parameter.grad.numpy().tobytes())
    for name, buffer in trainer.model.named_buffers():
        sha.update(name.encode() + buffer.numpy().tobytes())
    for state in trainer.optimizer.state_dict()["state"].values():
        sha.update(b"".join(torch.as_tensor(value).numpy().tobytes() for value in state.values()))
    return sha.hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_mask_rcnn_does_not_notice_the_validation_loss(datasets, tmp_path, monkeypatch, norm):
    """Must show 3: in front of and behind every measurement, and in the next step, all is bit for bit the same."""
    hooks, notes = job.default_hooks, []
    note = CallbackHook(before_step=lambda t: notes.append(digest(t)) if t.iter else None)
    monkeypatch.setattr(job, "default_hooks", lambda parts: [*hooks(parts), note])
    norms = [f"model.backbone.bottom_up.stages.{k}.norm={norm}" for k in range(4)]
    found = {}
    for name, more in {"without": [], "with": ["train.validation_loss={period: 1}"]}.items():
        notes.clear()
        work = ["--work-dir", str(tmp_path / name), "train.eval_period=0", "train.eval_after_train=false"]
        assert main(["--config-file", RECIPE, *work, *SMALL, "train.max_iter=4", *norms, *more]) == 0
        content = torch.load(tmp_path / name / "model_final.pth", weights_only=True)
        lines = [json.loads(line) for line in (tmp_path / name / "metrics.json").read_text().splitlines()]
        losses = [{k: v for k, v in line.items() if "loss" in k and "validation" not in k} for line in lines]
        weights = hashlib.sha256(b"".join(value.numpy().tobytes() for value in content["model"].values())).hexdigest()
        found[name] = [*notes], weights, [each for each in losses if each]
        measured = [line for line in lines if "validation/total_loss" in line]
        assert [line["iteration"] for line in measured] == ([0, 1, 2, 4] if more else [])
        for line in measured:
            parts = [line[f"validation/loss_{part}"] for part in ("rpn_cls", "rpn_loc", "cls", "box_reg", "mask")]
            assert line["validation/total_loss"] == pytest.approx(sum(parts))
    assert len(found["with"][0]) == len(found["with"][2]) - 1 == 3
    assert found["with"] == found["without"]


@pytest.mark.slow
def test_metrics_of_mask_rcnn_are_those_that_were_listed(datasets, tmp_path, capsys):
    run = ["--config-file", RECIPE, *SMALL, "train.max_iter=2", "train.eval_period=1"]
    assert main([*run, "--work-dir", str(tmp_path / "wrong"), BEST + "segm/AR"]) == 2
    listed = capsys.readouterr().err.split("There will be: ")[1].split(";")[0].split(", ")
    assert main([*run, "--work-dir", str(tmp_path / "right"), BEST + "segm/AP50", "train.validation_loss={}"]) == 0
    lines = [json.loads(line) for line in (tmp_path / "right" / "metrics.json").read_text().splitlines()]
    assert {name for name in lines[0] if name.startswith(("bbox/", "segm/"))} == set(listed)
    assert "validation/loss_mask" in lines[0]
