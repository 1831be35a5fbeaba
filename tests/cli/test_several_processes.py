"""The command line on several processes and machines, and the linear rule over a resume."""

import json
import subprocess
import sys

import pytest
import torch

from child_processes import ends_of, free_port
from hookline.cli.train import main
from small_runs import PROGRAM, RECIPE, SMALL

pytestmark = pytest.mark.usefixtures("datasets", "one_thread")


def run(work_dir, *more, recipe=RECIPE):
    return main(["--config-file", str(recipe), "--work-dir", str(work_dir), "--no-validate", *SMALL, *more])


def rates(work_dir):
    groups = torch.load(work_dir / "model_final.pth", weights_only=True)["optimizer"]["param_groups"]
    return {round(group["initial_lr"], 9) for group in groups}


def test_the_linear_rule_is_applied_once(tmp_path):
    scaled = ["--auto-scale-lr", "train.reference_batch_size=1", "train.accumulate=2", "optimizer.lr=1e-3"]
    assert run(tmp_path / "a", *scaled, "train.max_iter=1") == 0
    assert rates(tmp_path / "a") == {4e-3}
    assert "learning rate 0.001 x (2 images x 2 accumulated) / reference 1 = 0.004" in (
        tmp_path / "a" / "log.txt"
    ).read_text("utf-8")
    assert run(tmp_path / "a", *scaled, "train.max_iter=2", "--resume") == 0
    assert rates(tmp_path / "a") == {4e-3}
    # the saved recipe scales once too, with the flag or without
    again = ["--auto-scale-lr", "train.max_iter=1"]
    assert run(tmp_path / "b", *again, recipe=tmp_path / "a" / "config.yaml") == 0
    assert rates(tmp_path / "b") == {4e-3}


def test_the_flag_alone_names_what_it_needs(tmp_path, capsys):
    assert run(tmp_path, "--auto-scale-lr") == 2
    assert "train.reference_batch_size" in capsys.readouterr().err


def test_an_unknown_option_of_several_processes_is_named(tmp_path, capsys):
    assert run(tmp_path, "+train.ddp.find_unused_parameter=true") == 2
    assert "did you mean train.ddp.find_unused_parameters?" in capsys.readouterr().err


@pytest.mark.slow
def test_machines_with_different_recipes_do_not_start(tmp_path):
    url = f"tcp://127.0.0.1:{free_port()}"
    machines = []
    for rank in range(2):
        place = ["--num-procs", "1", "--num-machines", "2", "--machine-rank", str(rank), "--dist-url", url]
        setting = [f"optimizer.lr={rank + 1}e-3", "train.max_iter=1", *SMALL]
        command = [sys.executable, PROGRAM, "--config-file", RECIPE, "--work-dir", tmp_path / "run", *place, *setting]
        machines.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    for code, output in ends_of(machines, timeout=240):
        assert code == 2, output
        assert "optimizer.lr: 0.001 on rank 0, 0.002 on rank 1" in output
        assert "Traceback" not in output
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.slow
def test_one_two_and_three_processes_evaluate_to_the_same_digits(tmp_path, capfd):
    assert run(tmp_path / "run", "train.max_iter=2") == 0
    weights = f"train.init_checkpoint={tmp_path / 'run' / 'model_final.pth'}"
    results, tables = [], []
    for processes in ("1", "2", "3"):
        work_dir = ["--work-dir", str(tmp_path / processes), "--num-procs", processes]
        capfd.readouterr()
        assert main(["--config-file", RECIPE, *work_dir, "--eval-only", *SMALL, weights]) == 0
        printed = capfd.readouterr().out
        tables.append([line.split("copypaste: ")[1] for line in printed.splitlines() if "copypaste: " in line])
        results.append((tmp_path / processes / "inference" / "coco_instances_results.json").read_bytes())
    assert json.loads(results[0])
    assert results[0] == results[1] == results[2]
    assert len(tables[0]) >= 4  # a line of names and one of numbers, for boxes and for masks
    assert tables[0] == tables[1] == tables[2]
