"""``--resume`` from the command line: what is refused, what is said, and signals to a whole run."""

import json
import os
import signal

import pytest
import torch

from hookline.cli import job
from hookline.cli.train import main
from hookline.engine.hooks import CallbackHook
from small_runs import RECIPE, SMALL

OFTEN = [*SMALL, "train.checkpointer.period=2"]


@pytest.fixture
def run(datasets, monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)

    def run(*more, folder="run"):
        arguments = ["--config-file", RECIPE, "--work-dir", str(tmp_path / folder)]
        return main([*arguments, "--resume", *OFTEN, *more])

    return run


def weights(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def test_other_data_is_refused_and_a_longer_run_is_explained(run, tmp_path, capfd):
    assert run("train.max_iter=2", "--no-validate") == 0  # nothing there yet means a fresh start
    assert "starting fresh" in capfd.readouterr().err + (tmp_path / "run" / "log.txt").read_text()
    longer = ("train.max_iter=3", "--no-validate")
    assert run(*longer, "dataloader.train.total_batch_size=1") == 1
    assert "train.allow_changed_data=True" in capfd.readouterr().err
    assert run(*longer, "dataloader.train.total_batch_size=1", "train.allow_changed_data=True") == 0
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "Resumed at iteration 2 of 3" in log
    assert "max_iter" in log


def test_a_signal_leaves_with_its_code_and_the_next_start_goes_on(run, tmp_path, monkeypatch):
    def stop(trainer):
        if trainer.iter == 2:
            os.kill(os.getpid(), signal.SIGUSR1)

    hooks = job.default_hooks
    options = ("train.max_iter=5", "train.eval_period=2", "train.suspend.grace_s=60")
    assert run(*options, folder="whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr(job, "default_hooks", lambda *args: [CallbackHook(after_backward=stop), *hooks(*args)])
        with pytest.raises(SystemExit) as leaving:
            run(*options)
    assert leaving.value.code == 128 + signal.SIGUSR1
    assert (tmp_path / "run" / "last_checkpoint").read_text() == "model_0000002.pth"
    assert run(*options) == 0
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "run").items())
    curves = []
    for folder in ("run", "whole"):
        lines = [json.loads(line) for line in (tmp_path / folder / "metrics.json").read_text().splitlines()]
        curves.append([(line["iteration"], line["total_loss"], line.get("bbox/AP")) for line in lines if "lr" in line])
    assert curves[0] == curves[1]


def test_a_signal_before_the_first_step_is_not_lost(run, tmp_path, monkeypatch):
    build = job.build_train_loader

    def slowly(*args):
        os.kill(os.getpid(), signal.SIGUSR2)
        return build(*args)

    monkeypatch.setattr(job, "build_train_loader", slowly)
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)]
    with pytest.raises(SystemExit) as leaving:
        run("train.max_iter=2", "--no-validate")
    assert leaving.value.code == 128 + signal.SIGUSR2
    assert not list((tmp_path / "run").glob("*.pth"))
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)] == before


def test_a_signal_after_the_last_step_does_not_turn_success_into_failure(run, monkeypatch):
    hooks = job.default_hooks
    late = CallbackHook(after_train=lambda trainer: os.kill(os.getpid(), signal.SIGUSR1))
    monkeypatch.setattr(job, "default_hooks", lambda *args: [*hooks(*args), late])
    assert run("train.max_iter=1", "--no-validate") == 0


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("on_suspend=requeu", "on_suspend='requeu'"),
        ("exit_code=300", "exit_code=300"),
        ("period=0", "period=0"),
        ("deadline_s=soon", "deadline_s='soon'"),
        ("deadline_s=slurm", "no Slurm job"),
    ],
)
def test_wrong_settings_are_named(run, capfd, setting, words):
    assert run(f"train.suspend.{setting}", "train.max_iter=1") == 2
    assert words in capfd.readouterr().err
