"""The command line on several processes when something fails: exit code, one clear message, nobody left.

The runs are ``train_net.py`` with a recipe of a user's own, whose model (``faulty_model.py``) fails where it is told.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from child_processes import whole_session
from hookline.cli.train import main
from small_runs import PROGRAM, RECIPE, SMALL

OFTEN = [
    *SMALL,
    "dataloader.train.num_workers=1",
    "dataloader.test.num_workers=1",
    "train.max_iter=6",
    "train.eval_period=4",
    "train.checkpointer.period=2",
]
FAULTY_RECIPE = """
from faulty_model import FaultyRCNN
from hookline.configs.balloon.mask_rcnn_tiny import dataloader, lr_multiplier, model, optimizer, train
model["_target_"] = FaultyRCNN
"""
LAUNCH_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR", "PORT", "NNODES", "NODE_RANK")

BOUND_S = 60.0  # from the failure to the end of all processes; on an idle machine 2 to 5 s
START_S = 400.0


@pytest.fixture(autouse=True)
def environment(datasets, monkeypatch):
    for name in LAUNCH_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0",
    "GROUP_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29400",
}
TWO = ["--num-procs", "1", "--num-machines", "2"]


@pytest.mark.parametrize(
    ("flags", "variables", "words"),
    [
        (["--num-gpus", "99", "train.device=auto"], {}, ["--num-gpus", "99 GPUs were asked for", "--num-procs"]),
        (["--num-gpus", "2"], {}, ["--num-gpus 2 and train.device='cpu' contradict each other", "--num-procs 2"]),
        ([*TWO, "--machine-rank", "-1"], {}, ["--machine-rank -1", "at least 0"]),
        ([*TWO, "--machine-rank", "2"], {}, ["machine rank 2 of 2", "--machine-rank", "expected 0 to 1"]),
        (TWO, {}, ["--num-machines 2 needs --machine-rank, from 0 to 1"]),
        ([*TWO, "--machine-rank", "0"], {}, ["--dist-url tcp://HOST:PORT, or MASTER_ADDR and MASTER_PORT"]),
        (["--num-procs", "2", "--dist-url", "10.0.0.1:29500"], {}, ["'10.0.0.1:29500'", "tcp://HOST:PORT"]),
        (["--num-procs", "2", "--dist-url", "tcp://h:0"], {}, ["'tcp://h:0'", "a port from 1 to 65535"]),
        (["--num-procs", "2"], {"MASTER_PORT": "many"}, ["MASTER_PORT=many", "whole number"]),
        (["--num-procs", "2"], {"PORT": "99999"}, ["PORT=99999", "from 1 to 65535"]),
        ([], {"NNODES": "2"}, ["NNODES=2 needs NODE_RANK, from 0 to 1"]),
        ([], {"NNODES": "2", "NODE_RANK": "7"}, ["machine rank 7 of 2", "NODE_RANK=7", "expected 0 to 1"]),
        (
            [],
            {"NNODES": "2", "NODE_RANK": "0", "WORLD_SIZE": "4", "RANK": "0"},
            ["NNODES=2, NODE_RANK=0 but WORLD_SIZE=4, RANK=0", "--num-machines and --machine-rank"],
        ),
        (["--num-procs", "4"], TORCHRUN, ["--num-procs 4 contradicts torchrun", "LOCAL_WORLD_SIZE=2"]),
        (["--num-machines", "3"], TORCHRUN, ["--num-machines 3 contradicts torchrun", "GROUP_WORLD_SIZE=1"]),
        (["--launcher", "slurm"], {}, ["SLURM_PROCID", "srun python"]),
        ([], {"LOCAL_RANK": "0"}, ["looks like torchrun", "RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT is not set"]),
    ],
)
def test_a_wrong_call_starts_nothing(tmp_path, monkeypatch, capfd, flags, variables, words):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        code = main(["--config-file", RECIPE, "--work-dir", str(tmp_path / "run"), *OFTEN, *flags])
    except SystemExit as stop:  # said before anything was imported
        code = stop.code
    assert code == 2
    error = capfd.readouterr().err.strip()
    assert error.removeprefix("train_net.py: ").startswith("error: ")
    assert "\n" not in error
    for word in words:
        assert word in error
    assert not (tmp_path / "run").exists()


def test_a_port_in_use_is_a_wrong_call(tmp_path, capfd):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        where = ["--num-procs", "2", "--dist-url", f"tcp://127.0.0.1:{port}"]
        assert main(["--config-file", RECIPE, "--work-dir", str(tmp_path / "run"), *OFTEN, *where]) == 2
    error = capfd.readouterr().err.strip()
    assert error.startswith(
        f"error: port {port} is in use on this machine: choose another one (--dist-url, MASTER_PORT)"
    )
    assert "\n" not in error


class Run:
    """``train_net.py`` on two processes, in a session of its own."""

    def __init__(self, folder: Path, *arguments: str, fault: str = "", torchrun: bool = False, **variables: str):
        self.fault = folder / "fault"
        self.fault.unlink(missing_ok=True)
        (folder / "recipe.py").write_text(FAULTY_RECIPE)
        more = ["--config-file", str(folder / "recipe.py"), "--work-dir", str(folder / "run"), *OFTEN, *arguments]
        how = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if torchrun else []
        self.program = subprocess.Popen(
            [sys.executable, *how, PROGRAM, *more, *([] if torchrun else ["--num-procs", "2"])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={
                **os.environ,
                "FAULT": fault,
                "FAULT_FOLDER": str(folder),
                "PYTHONPATH": os.pathsep.join(sys.path),
                **variables,
            },
        )

    def wait_for_fault(self):
        deadline = time.monotonic() + START_S
        while self.program.poll() is None and not self.fault.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        if not self.fault.exists():
            raise AssertionError(f"the failure never began:\n{self.end()}")

    def end(self) -> tuple[int, str, str]:
        """Wait for the end of all processes; return exit code, output and errors."""
        with whole_session(self.program):
            output, errors = self.program.communicate(timeout=BOUND_S if self.fault.exists() else START_S)
        return self.program.returncode, output, errors


def without_places(errors: str) -> str:
    """What is on the error stream besides each rank's line with its place, and Python's and torch's warnings."""
    lines = [line for line in errors.splitlines() if not re.match(r"rank \d of 2: .* pid \d+, cpu", line)]
    return "\n".join(line for line in lines if "Warning: " not in line and not line.startswith("  "))


KILLED = r"error: rank {} was killed by SIGKILL; the system may have run out of memory \(see dmesg\)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "told", "resumed_from"),
    [
        ("forward,kill,1,4", KILLED.format(1), 1),
        ("evaluation,kill,1,1", KILLED.format(1), 3),
        ("save,kill,0,0", KILLED.format(0), None),
    ],
)
def test_a_killed_process_is_one_line(tmp_path, fault, told, resumed_from):
    run = Run(tmp_path, fault=fault)
    run.wait_for_fault()
    code, output, errors = run.end()
    assert code == 1, output + errors
    assert re.fullmatch(told, without_places(errors)), errors
    assert "Traceback" not in output
    assert not re.search(r"ERROR", output)
    code, output, errors = Run(tmp_path, "--resume").end()
    assert code == 0, output + errors
    found = "no checkpoint in" if resumed_from is None else f"model_{resumed_from:07d}.pth"
    assert found in output
    assert (tmp_path / "run" / "model_final.pth").exists()


@pytest.mark.slow
def test_a_killed_data_worker_is_one_line(tmp_path):
    run = Run(tmp_path, fault="forward,worker,1,4")
    run.wait_for_fault()
    code, output, errors = run.end()
    assert code == 1, output + errors
    assert re.fullmatch(r"error: rank 1: a data worker died.*memory was full.*", without_places(errors)), errors
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_an_exception_is_told_once_with_its_own_traceback(tmp_path, rank):
    run = Run(tmp_path, fault=f"forward,raise,{rank},4")
    run.wait_for_fault()
    code, output, errors = run.end()
    assert code == 1, output + errors
    assert errors.count("Traceback") == 1, errors
    assert f"error: rank {rank} failed:\nTraceback" in errors
    assert errors.strip().splitlines()[-1] == "ValueError: broken in forward on purpose"
    assert "closed by peer" not in output + errors
    assert "Traceback" not in output
    if rank == 1:
        assert "WARNING rank 0 stops at iteration 3: it lost contact with other ranks" in output
        log = (tmp_path / "run" / "log.txt.rank1").read_text("utf-8")
        assert "ValueError: broken in forward on purpose" in log
        assert "Traceback" in log


@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "raise"])
def test_under_torchrun(tmp_path, how):
    run = Run(tmp_path, fault=f"forward,{how},1,4", torchrun=True)
    run.wait_for_fault()
    code, output, errors = run.end()
    assert code == 1, output + errors
    cause = r"rank +: 1 .*\n +exitcode +: -9 " if how == "kill" else r"ValueError: broken in forward on purpose"
    assert re.search(cause, errors), errors
    assert errors.count("error: rank 1 failed:") == (how == "raise"), errors
    assert "closed by peer" not in output + errors
    code, output, errors = Run(tmp_path, "--resume", torchrun=True).end()
    assert code == 0, output + errors
    assert (tmp_path / "run" / "model_final.pth").exists()


@pytest.mark.slow
@pytest.mark.parametrize("where", ["forward,wait,1,3", "evaluation,wait,1,1", "save,wait,0,0"])
def test_ctrl_c_is_one_line(tmp_path, where):
    """A terminal sends SIGINT to all processes in its foreground."""
    run = Run(tmp_path, fault=where)
    run.wait_for_fault()
    os.killpg(run.program.pid, signal.SIGINT)
    code, output, errors = run.end()
    assert code == 130, output + errors
    assert without_places(errors) == "interrupted"
    assert "Traceback" not in output


@pytest.mark.slow
def test_sigterm_saves_and_leaves(tmp_path):
    """A scheduler sends SIGTERM to the first process alone; the step that runs is finished, saved and left."""
    run = Run(tmp_path, "train.max_iter=5000", "train.checkpointer.period=5000", "train.eval_period=0")
    log = tmp_path / "run" / "metrics.json"
    deadline = time.monotonic() + START_S
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    run.program.terminate()
    code, output, errors = run.end()
    assert code == 143, output + errors
    assert not without_places(errors)
    assert len(list((tmp_path / "run").glob("model_*.pth"))) == 1
    assert "Suspending at iteration" in output


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal."""
    caught = re.search(r"SigCgt:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    return bool(int(caught[1], 16) & 1 << number - 1)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell of signal handlers")
@pytest.mark.parametrize("delay_s", [0.0, 1.5])
def test_a_sigterm_before_the_ranks_are_started_ends_the_run(tmp_path, delay_s):
    run = Run(tmp_path)
    deadline = time.monotonic() + START_S
    while not catches(run.program.pid, signal.SIGTERM) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay_s)
    run.program.terminate()
    code, output, errors = run.end()
    assert code == 143, output + errors
    assert not list((tmp_path / "run").glob("m*"))  # neither metrics nor models
    assert "Traceback" not in errors


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell of signal handlers")
@pytest.mark.parametrize("where", ["starter", "ranks"])
def test_a_sigusr1_before_the_ranks_listen_suspends_the_run(tmp_path, where):
    """It comes before there are ranks, or as soon as there is one, which has no handlers for seconds."""
    run = Run(tmp_path, "train.max_iter=5000", "train.eval_period=0")
    program, deadline = psutil.Process(run.program.pid), time.monotonic() + START_S
    while not (catches(program.pid, signal.SIGUSR1) if where == "starter" else has_rank(program)):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    program.send_signal(signal.SIGUSR1)
    code, output, errors = run.end()
    assert code == 138, output + errors
    assert not without_places(errors)
    assert "Suspending before the first step; nothing is to be saved: signal SIGUSR1" in output


def has_rank(program: psutil.Process) -> bool:
    return any("spawn_main" in " ".join(child.cmdline()) for child in program.children())


@pytest.mark.slow
def test_a_sigterm_while_a_process_of_torchrun_waits_for_others_ends_it(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    run = Run(tmp_path, "train.env.rendezvous_timeout_s=1200", **{**TORCHRUN, "MASTER_PORT": str(port)})
    came = run.program.stderr.readline()
    while came and "rank 0 of 2: " not in came:
        came = run.program.stderr.readline()
    run.program.terminate()
    code, output, errors = run.end()
    assert code == 143, output + errors
    assert "Traceback" not in errors
