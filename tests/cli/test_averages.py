"""`train.ema` and `train.swa`: what is refused, what is evaluated, what is saved, and a run that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from hookline.cli.averages import build_averages, check_averages, with_averages
from hookline.cli.errors import UsageError
from hookline.cli.settings import load_settings
from hookline.cli.train import main, parse_arguments
from hookline.engine.hooks import EMAHook, SWAHook
from small_runs import PROGRAM, RECIPE, SMALL


def settings(**train):
    return OmegaConf.create({"train": {"ema": None, "swa": None, "max_iter": 100, **train}})


@pytest.mark.parametrize(
    ("train", "words"),
    [
        ({"ema": 0.999}, r"train\.ema=0\.999: expected null, or a dict"),
        ({"ema": {}}, r"train\.ema\.decay=None and train\.ema\.half_life=None: give one"),
        ({"ema": {"decay": 0.9, "half_life": 5}}, "give one"),
        ({"ema": {"deccay": 0.9}}, r"did you mean train\.ema\.decay"),
        ({"ema": {"decay": 1.0}}, r"train\.ema\.decay=1\.0: expected a number below 1"),
        ({"ema": {"decay": float("nan")}}, r"train\.ema\.decay=nan"),
        ({"ema": {"half_life": 0}}, r"train\.ema\.half_life=0: expected a number above 0"),
        ({"ema": {"decay": 0.9, "evaluate": "besides"}}, r"train\.ema\.evaluate='besides': did you mean beside"),
        ({"ema": {"decay": 0.9, "warmup": 10}}, r"train\.ema\.warmup=10: expected true or false"),
        ({"swa": {}}, r"train\.swa\.start is missing"),
        ({"swa": {"start": 0.5, "period": 0}}, r"train\.swa\.period=0"),
        ({"swa": {"start": 1.5}}, r"train\.swa\.start=1\.5"),
        ({"swa": {"start": 101}}, r"train\.swa\.start=101 is beyond the end"),
        ({"swa": {"start": -1}}, r"train\.swa\.start=-1"),
        ({"ema": {"decay": 0.9}, "swa": {"start": 0.5}}, "only one can stand for the weights"),
    ],
)
def test_refusals(train, words):
    with pytest.raises(UsageError, match=words):
        check_averages(settings(**train))


def test_a_setting_becomes_a_hook():
    cfg = settings(ema={"half_life": 10, "evaluate": None}, swa={"start": 0.5, "period": 2, "save_final": False})
    check_averages(cfg)
    ema, swa = build_averages(cfg.train)
    assert isinstance(ema.hook, EMAHook)
    assert ema.hook.decay == pytest.approx(0.5**0.1)
    assert isinstance(swa.hook, SWAHook)
    assert (swa.hook.start, swa.hook.period) == (0.5, 2)
    assert (ema.evaluate, ema.save_final, swa.evaluate, swa.save_final) == (None, True, "instead", False)
    assert build_averages(settings().train) == []


def test_a_quick_check_reaches_the_averages():
    arguments = parse_arguments(["--config-file", RECIPE, "--fast-dev-run", "train.swa={start: 2000}"])
    assert load_settings(arguments).train.swa.start == 0


def test_a_start_beyond_the_end_is_refused_in_epochs_too(run, tmp_path, capfd):
    epochs = ["--no-validate", "train.max_iter=null", "train.max_epochs=1", "train.swa={start: 100}"]
    assert run("out", *epochs) == 2
    assert "train.swa.start=100 is beyond the end of the run, its 4 iterations" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("evaluate", "ready", "expected"),
    [
        ("instead", True, {"bbox": {"AP": 2.0}}),
        ("instead", False, {"bbox": {"AP": 1.0}}),
        ("beside", True, {"bbox": {"AP": 1.0}, "ema/bbox": {"AP": 2.0}}),
        ("beside", False, {"bbox": {"AP": 1.0}}),
        (None, True, {"bbox": {"AP": 1.0}}),
    ],
)
def test_what_is_evaluated(evaluate, ready, expected):
    model = torch.nn.Linear(1, 1, bias=False)
    (average,) = build_averages(settings(ema={"decay": 0.5, "evaluate": evaluate}).train)
    average.hook.trainer = SimpleNamespace(model=model)
    torch.nn.init.constant_(model.weight, 2.0)
    if ready:
        average.hook.before_train()
    torch.nn.init.constant_(model.weight, 1.0)
    assert with_averages(lambda: {"bbox": {"AP": model.weight.item()}}, [average])() == expected
    assert model.weight == 1.0


@pytest.fixture
def run(datasets, tmp_path):
    return lambda folder, *more: main(["--config-file", RECIPE, "--work-dir", str(tmp_path / folder), *SMALL, *more])


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return {name: value for line in lines for name, value in line.items()}


@pytest.mark.slow
def test_a_run_evaluates_and_saves_its_averages(run, tmp_path, capfd):
    both = ["train.ema={decay: 0.5, evaluate: beside}", "train.swa={start: 0.5}"]
    assert run("a", *both, "train.max_iter=4", "train.eval_period=2") == 0
    found = metrics(tmp_path / "a")
    assert {"bbox/AP", "ema/bbox/AP", "segm/AP50", "ema/segm/AP50"} <= found.keys()
    assert not any(name.startswith("swa/") for name in found)  # they are the usual names
    whole = torch.load(tmp_path / "a" / "model_final.pth", weights_only=True)
    for name, hook in (("ema", "EMAHook"), ("swa", "SWAHook")):
        slim = torch.load(tmp_path / "a" / f"model_final_{name}.pth", weights_only=True)["model"]
        averages = whole["hooks"][hook]["averages"]
        assert all(torch.equal(slim[key], averages.get(key, value)) for key, value in whole["model"].items())

    def predictions(file, *more):
        work = [f"train.init_checkpoint={tmp_path / 'a' / file}.pth", *more]
        assert run("b", "--eval-only", *work) == 0
        return (tmp_path / "b" / "inference" / "coco_instances_results.json").read_bytes()

    averaged = predictions("model_final_ema")
    assert predictions("model_final", "train.ema={decay: 0.5}") == averaged
    assert predictions("model_final") != averaged
    assert "which are not evaluated; train.ema would do that" in (tmp_path / "b" / "log.txt").read_text()
    assert predictions("model_final_ema", "train.ema={decay: 0.5}") == averaged


@pytest.mark.slow
def test_averages_after_a_kill_are_those_of_a_run_that_was_not_killed(datasets, one_thread, tmp_path):
    setting = ["train.ema={half_life: 3}", "train.swa={start: 2, period: 2, evaluate: beside}", "train.max_iter=12"]
    setting += ["train.checkpointer.period=2", "train.eval_period=0", "train.precise_bn={period: 3, num_iter: 2}"]

    def start(folder):
        work = ["--config-file", RECIPE, "--work-dir", tmp_path / folder, "--resume", "--no-validate", *SMALL, *setting]
        return subprocess.Popen([sys.executable, PROGRAM, *work], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    whole = start("whole")
    assert whole.wait(timeout=300) == 0
    killed = start("killed")
    deadline = time.monotonic() + 300
    while not (tmp_path / "killed" / "model_0000005.pth").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    assert killed.wait(timeout=60) == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model_final.pth").exists()
    assert start("killed").wait(timeout=300) == 0
    assert "Resumed at iteration" in (tmp_path / "killed" / "log.txt").read_text()
    first, second = (torch.load(tmp_path / f / "model_final.pth", weights_only=True) for f in ("whole", "killed"))
    assert all(torch.equal(value, second["model"][name]) for name, value in first["model"].items())
    for hook, updates in (("EMAHook", 12), ("SWAHook", 6)):
        before, after = first["hooks"][hook], second["hooks"][hook]
        assert before["updates"] == after["updates"] == updates
        assert before["averages"].keys() == after["averages"].keys()
        assert all(torch.equal(value, after["averages"][name]) for name, value in before["averages"].items())
