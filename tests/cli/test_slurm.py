"""The script that `hookline slurm` writes, what it refuses, and what sbatch is told."""

import os
import subprocess

import pytest

from hookline.cli.slurm import run

PLACE = ["balloon/mask_rcnn_tiny", "--partition", "dev", "--job-name", "n"]


@pytest.fixture
def write(tmp_path, capsys):
    def write(*argv):
        assert run([*PLACE, "--work-dir", str(tmp_path), *argv]) == 0
        script = (tmp_path / "slurm.sh").read_text()
        assert capsys.readouterr().out.startswith(script)
        assert subprocess.run(["bash", "-n", tmp_path / "slurm.sh"], check=False).returncode == 0
        return script

    return write


def directives(script):
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH")]


def test_gpus_are_spread_over_machines(write, tmp_path):
    settings = ["dataloader.train.total_batch_size=16", "optimizer.lr=0.01"]
    script = write("--gpus", "16", *settings, "--", "--auto-scale-lr", "train.reference_batch_size=8")
    assert directives(script) == [
        *("--job-name=n", "--partition=dev", "--nodes=2", "--ntasks-per-node=8", "--gres=gpu:8", "--cpus-per-task=5"),
        *("--no-requeue", "--open-mode=append", f"--output={tmp_path}/slurm-%j.out"),
    ]
    last = script.splitlines()[-1]
    assert last.startswith("exec srun --kill-on-bad-exit=1 --cpus-per-task=5 ")
    arguments = f"--auto-scale-lr train.reference_batch_size=8 {' '.join(settings)}"
    assert last.endswith(f"--launcher slurm --work-dir {tmp_path} {arguments}")


def test_a_job_that_may_come_again_resumes(write):
    script = write("--gpus", "4", "--time", "2-00:00:00", "--requeue", "--signal", "USR1@90", "--sbatch=--qos=x")
    found = directives(script)
    assert found[2:5] == ["--nodes=1", "--ntasks-per-node=4", "--gres=gpu:4"]
    assert {"--time=2-00:00:00", "--requeue", "--signal=USR1@90", "--qos=x"} <= set(found)
    assert script.splitlines()[-1].endswith("--resume train.suspend.on_suspend=requeue")
    assert "--resume x.pth" in write("--gpus", "4", "--requeue", "--", "--resume", "x.pth").splitlines()[-1]


def test_processes_on_the_cpu(write):
    settings = ["dataloader.train.total_batch_size=6", "train.max_iter=5"]
    script = write("--procs", "6", "--procs-per-node", "3", "--setup", "module load python", *settings)
    found = directives(script)
    assert found[2:5] == ["--nodes=2", "--ntasks-per-node=3", "--cpus-per-task=1"]
    assert "\nmodule load python\n" in script
    assert f"--num-procs 3 train.device=cpu {' '.join(settings)}" in script


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "give --gpus"),
        (["--gpus", "2", "--procs", "2"], "give --gpus"),
        (["--gpus", "12"], "nearest that do: 8 or 16"),
        (["--gpus", "-8"], "--gpus -8"),
        (["--gpus", "8", "--time", "soon"], "--time soon"),
        (["--gpus", "8", "--signal", "HUP@90"], "--signal HUP@90"),
        (["--gpus", "8", "--job-name", "a\nb"], "--job-name"),
        (["--gpus", "8", "--nosuch"], "--nosuch"),
        (
            ["--gpus", "8", "--resume", "a=1"],
            "arguments: --resume; flags of the training come behind --: ... -- --resume",
        ),
        (["--num-gpus", "8"], "did you mean '--gpus'"),
        (["--gpus", "8", "--", "--nosuch"], "--nosuch"),
    ],
)
def test_a_wrong_call_ends_with_code_2(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        run([*PLACE, *argv])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_a_wrong_setting_is_found_before_it_waits_in_the_queue(tmp_path, capsys):
    assert run([*PLACE, "--gpus", "8", "--work-dir", str(tmp_path / "new"), "train.max_itre=3"]) == 2
    assert "max_iter" in capsys.readouterr().err
    assert run([*PLACE, "--gpus", "16", "--work-dir", str(tmp_path / "new")]) == 2
    assert "total_batch_size=8 cannot be divided among 16 processes; nearest: 16" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("body", "code", "words"), [("echo '17;c'", 0, "job 17"), ("echo no such partition >&2; exit 3", 1, "no such")]
)
def test_submit_says_what_sbatch_answered(tmp_path, monkeypatch, capsys, body, code, words):
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/told\n{body}\n')
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{sbatch.parent}{os.pathsep}{os.environ['PATH']}")
    assert run([*PLACE, "--gpus", "8", "--work-dir", str(tmp_path), "--submit"]) == code
    assert (tmp_path / "told").read_text() == f"--parsable {tmp_path}/slurm.sh\n"
    output = capsys.readouterr()
    assert words in output.out + output.err


def test_submit_without_slurm(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run([*PLACE, "--gpus", "8", "--work-dir", str(tmp_path), "--submit"]) == 1
    assert "no sbatch" in capsys.readouterr().err
