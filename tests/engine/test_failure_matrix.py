"""Real trainings on several processes that fail in every place: bounded, with the cause told once, nobody left.

What fails is `failing_run.py`, in a session of its own, so that whatever it leaves behind is found.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import failing_run
from child_processes import free_port, whole_session

PROGRAM = failing_run.__file__
TORCHRUN = ["-m", "torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--master-addr=127.0.0.1"]

# From the failure to the end of all processes, on an idle machine 1 to 4 s. The starter gives the others 2 s to end by
# themselves and 4 s after SIGTERM; the rest is for a busy machine.
BOUND_S = 40.0
START_S = 240.0  # importing torch several times on a busy machine
HANG_TIMEOUT_S = 6.0  # where that is what ends the run


@dataclass
class Ended:
    """How a program ended.

    Attributes:
        code: Exit code.
        output: What it printed.
        seconds: From the failure to its end; from the start where nothing failed.
    """

    code: int
    output: str
    seconds: float


def end_of(program: subprocess.Popen, folder: Path) -> Ended:
    """Wait for the failure, then for the end within the bound, and see that nobody is left."""
    started, fault = time.time(), folder / "fault"
    with whole_session(program):
        while program.poll() is None and not fault.exists():
            assert time.time() - started < START_S, "the failure never began"
            time.sleep(0.05)
        output, _ = program.communicate(timeout=BOUND_S if fault.exists() else START_S)
        seconds = time.time() - (float(fault.read_text()) if fault.exists() else started)
    return Ended(program.returncode, output, seconds)


def start(folder: Path, *arguments: str, torchrun=False, procs=2) -> tuple[subprocess.Popen, int]:
    """Start the program on a port of our choice."""
    port = free_port()
    here = [f"--master-port={port}"] if torchrun else []
    place = [] if torchrun else ["--procs", str(procs), "--url", f"tcp://127.0.0.1:{port}"]
    command = [sys.executable, *(TORCHRUN if torchrun else []), *here, PROGRAM, str(folder), *arguments, *place]
    environ = {name: value for name, value in os.environ.items() if name not in ("PORT", "MASTER_PORT")}
    environ["OMP_NUM_THREADS"] = "1"
    program = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True, env=environ
    )
    return program, port


def fail(folder: Path, *arguments: str, torchrun=False, procs=2) -> Ended:
    """Run the program, which fails; nothing of it must be left, neither processes nor the port nor shared memory."""
    shared = set(shared_memory())
    times = ["--timeout", str(HANG_TIMEOUT_S)] if "hang" in arguments else []
    program, port = start(folder, *arguments, *times, torchrun=torchrun, procs=procs)
    ended = end_of(program, folder)
    assert (folder / "fault").exists(), f"it did not fail where it should:\n{ended.output}"
    with socket.create_server(("127.0.0.1", port)):
        pass  # free again
    pids = {path.read_text() for path in folder.glob("pid*")}
    assert not [name for name in set(shared_memory()) - shared if pids & set(re.findall(r"\d+", name))]
    return ended


def shared_memory() -> list[str]:
    """The files that torch keeps in shared memory, which are named after their process."""
    return [path.name for path in Path("/dev/shm").glob("torch_*")]


def resume(folder: Path, *arguments: str) -> Ended:
    (folder / "fault").unlink()
    return end_of(start(folder, "--resume", *arguments)[0], folder)


def result(output: str) -> str:
    """The weights that a finished run prints."""
    return re.search(r"done from \d+ on \d+ ranks: (\[.*\])", output)[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    """The weights after a run without a failure."""
    folder = tmp_path_factory.mktemp("whole")
    ended = end_of(start(folder)[0], folder)
    assert ended.code == 0, ended.output
    return result(ended.output)


KILLED = r"RankFailedError: rank {rank} was killed by SIGKILL; the system may have run out of memory"
RAISED = r"ValueError: broken in {where} on purpose"


@pytest.mark.parametrize(
    ("where", "how", "rank", "told"),
    [
        ("forward", "kill", 1, KILLED),
        pytest.param("forward", "kill", 0, KILLED, marks=pytest.mark.slow),
        pytest.param("backward", "kill", 1, KILLED, marks=pytest.mark.slow),
        pytest.param("evaluation", "kill", 1, KILLED, marks=pytest.mark.slow),
        pytest.param("save", "kill", 0, KILLED, marks=pytest.mark.slow),
        pytest.param("worker", "kill", 1, r"a data worker died|DataLoader worker .* killed", marks=pytest.mark.slow),
        ("hook", "raise", 1, RAISED),
        pytest.param("forward", "raise", 1, RAISED, marks=pytest.mark.slow),
        pytest.param("backward", "raise", 1, RAISED, marks=pytest.mark.slow),
        pytest.param("evaluation", "raise", 1, RAISED, marks=pytest.mark.slow),
        pytest.param("worker", "raise", 0, RAISED, marks=pytest.mark.slow),
        pytest.param(
            "disk", "full", 0, r"CheckpointError: could not write .*model_0000008\.pth", marks=pytest.mark.slow
        ),
        pytest.param(
            "forward",
            "hang",
            1,
            r"rank 0 waited 6 s \(train\.env\.\w+\) for rank\(s\) 1 on \S+ in a",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "worker",
            "hang",
            1,
            r"rank 0 waited 6 s \(train\.env\.\w+\) for rank\(s\) 1 on \S+ in a",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "evaluation",
            "hang",
            1,
            r"rank 0 waited 6 s \(train\.env\.\w+\) for rank\(s\) 1 on \S+ in a",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_failure_ends_all_and_the_run_can_be_resumed(tmp_path, whole, where, how, rank, told):
    ended = fail(tmp_path, "--where", where, "--how", how, "--rank", str(rank))
    assert ended.code == 1, ended.output
    assert ended.seconds < BOUND_S
    assert_told_once(ended.output, told.format(rank=rank, where=where))
    saved = list(tmp_path.glob("model_*.pth"))
    resumed = resume(tmp_path)
    assert resumed.code == 0, resumed.output
    assert ("done from 0" in resumed.output) == (not saved)
    assert saved or where == "worker"  # which makes batches ahead
    assert result(resumed.output) == whole


def assert_told_once(output: str, told: str) -> None:
    """The cause is the last line, and the others' broken connections are not shown as errors."""
    last = [line for line in output.splitlines() if line.strip()][-1]
    assert re.search(told, last), output
    if "waited" not in told:
        assert "closed by peer" not in output
        assert "LostContactError" not in output
    assert len(re.findall(r"rank \d+ failed:\nTraceback", output)) <= 1
    assert "leaked semaphore" not in output


@pytest.mark.slow
@pytest.mark.parametrize(("where", "rank"), [("after_train", 1), ("final_evaluation", 1), ("final_evaluation", 0)])
def test_a_failure_at_the_end_is_that_of_its_rank(tmp_path, where, rank):
    """The other rank waits in the evaluation; hooks behind the broken one must not answer it."""
    ended = fail(tmp_path, "--where", where, "--how", "raise", "--rank", str(rank), "--best")
    assert ended.code == 1, ended.output
    assert_told_once(ended.output, RAISED.format(where=where))
    assert f"RankFailedError: rank {rank} failed:" in ended.output


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_leaves_by_itself_gives_its_code(tmp_path, whole, rank):
    ended = fail(tmp_path, "--where", "hook", "--how", "exit", "--rank", str(rank))
    assert ended.code == 5, ended.output
    assert "Traceback" not in ended.output
    assert re.search(rf"rank {1 - rank} stops at iteration [78]: it lost contact with other ranks", ended.output)
    assert result(resume(tmp_path).output) == whole


@pytest.mark.slow
def test_no_orphan_when_the_starter_is_killed(tmp_path, whole):
    ended = fail(tmp_path, "--where", "hook", "--how", "starter", "--rank", "1")
    assert ended.code == -signal.SIGKILL
    assert result(resume(tmp_path).output) == whole


@pytest.mark.slow
@pytest.mark.parametrize(("where", "how"), [("backward", "kill"), ("evaluation", "raise"), ("forward", "hang")])
def test_on_three_ranks(tmp_path, where, how):
    ended = fail(tmp_path, "--where", where, "--how", how, "--rank", "2", procs=3)
    assert ended.code == 1, ended.output
    told = {
        "kill": KILLED,
        "raise": RAISED,
        "hang": r"rank [01] waited 6 s \(train\.env\.\w+\) for rank\(s\) 2 on \S+ in a",
    }[how]
    assert_told_once(ended.output, told.format(rank=2, where=where))
    # the two that are left end the run: the stream of samples does not depend on the number of ranks
    resumed = resume(tmp_path)
    assert resumed.code == 0, resumed.output


@pytest.mark.slow
@pytest.mark.parametrize("where", ["forward", "evaluation", "save"])
def test_ctrl_c(tmp_path, whole, where):
    """A terminal sends SIGINT to all of its processes: starter, ranks and data workers."""
    program, _ = start(tmp_path, "--where", where, "--how", "wait", "--rank", "0" if where == "save" else "1")
    deadline = time.monotonic() + START_S
    while not (tmp_path / "fault").exists():
        assert program.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(program.pid, signal.SIGINT)
    ended = end_of(program, tmp_path)
    assert ended.code in (130, -signal.SIGINT, 1), ended.output  # Python's own choice; the command line's is 130
    assert ended.seconds < BOUND_S
    assert ended.output.count("KeyboardInterrupt") == 1  # of the starter, which has no command line around it
    assert "LostContactError" not in ended.output
    assert result(resume(tmp_path).output) == whole


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "how", "cause"),
    [
        ("forward", "kill", r"rank +: 1 .*\n +exitcode +: -9 "),
        ("hook", "raise", r"ValueError: broken in hook on purpose"),
        ("forward", "hang", r"LostContactError: rank 0 waited 6 s \(train\.env\.\w+\) for rank\(s\) 1 on \S+ in a"),
        ("disk", "full", r"CheckpointError: could not write"),
    ],
)
def test_under_torchrun(tmp_path, whole, where, how, cause):
    """torchrun ends the others itself and names the root cause; its exit code is always 1."""
    rank = "0" if where == "disk" else "1"
    ended = fail(tmp_path, "--where", where, "--how", how, "--rank", rank, torchrun=True)
    assert ended.code == 1, ended.output
    assert re.search(cause, ended.output), ended.output
    if "[rank0]: RuntimeError" in ended.output:  # torchrun did not end it before it could say why
        assert "LostContactError: rank 0 " in ended.output
    assert result(resume(tmp_path).output) == whole
