"""Real processes: that they meet, that none is left, and who is blamed."""

import contextlib
import io
import itertools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import types
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import cloudpickle
import psutil
import pytest
import torch
import torch.distributed as dist

from child_processes import ends_of, free_port
from hookline import distributed as hd
from hookline.engine import launch_meet, launch_rank, launch_watch
from hookline.engine.launch import LaunchError, RankFailedError, RendezvousError, launch
from hookline.engine.launch_causes import LostContactError
from hookline.engine.launch_meet import meet
from hookline.engine.launch_rank import RankPlace, Waits, in_group
from hookline.engine.launch_report import noted_rank
from hookline.engine.launch_store import serve_store

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the ranks cannot import a test file by name

REPO = Path(__file__).parents[2]


class OddError(Exception):
    """An exception that cannot be built again from its arguments."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


@pytest.fixture(autouse=True)
def nobody_left(monkeypatch):
    """No child of this process outlives a test; and no variable of an outer launcher reaches it."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT", "PORT", "NNODES", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    me = psutil.Process()
    before = {child.pid for child in me.children(recursive=True)}
    yield
    left = [
        c for c in me.children(recursive=True) if c.pid not in before and "resource_tracker" not in str(c.cmdline())
    ]
    assert not left


def on_two(main, *args, **kwargs):
    """Launch on two CPU processes, their lines kept out of the report."""
    with contextlib.redirect_stderr(io.StringIO()):
        launch(main, 0, args=args, num_procs_per_machine=2, rendezvous_timeout=timedelta(seconds=60), **kwargs)


def script(tmp_path, body: str) -> subprocess.Popen:
    """Start a program that launches `main(folder)` on two ranks."""
    code = "import os, signal, sys, time\nfrom pathlib import Path\nfrom hookline import distributed as hd\n"
    code += "from hookline.engine.launch import launch\n" + textwrap.dedent(body)
    code += f"\nif __name__ == '__main__':\n    launch(main, 0, args=({str(tmp_path)!r},), num_procs_per_machine=2)\n"
    (tmp_path / "program.py").write_text(code)
    return subprocess.Popen(
        [sys.executable, tmp_path / "program.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


WAITING = """
    def main(folder):
        Path(folder, f"pid{hd.get_rank()}").write_text(str(os.getpid()))
        for _ in range(3000):  # a signal that comes just before a sleep waits for its end
            time.sleep(0.1)
"""


def pids_of_ranks(tmp_path) -> list[int]:
    wait_for(lambda: all((tmp_path / f"pid{rank}").exists() for rank in (0, 1)))
    wait_for(lambda: all((tmp_path / f"pid{rank}").read_text() for rank in (0, 1)))
    return [int((tmp_path / f"pid{rank}").read_text()) for rank in (0, 1)]


def test_a_single_process_runs_here_without_a_group():
    seen = []
    launch(lambda x: seen.append((x, os.getpid(), hd.get_world_size())), 0, args=(3,))
    assert seen == [(3, os.getpid(), 1)]
    with pytest.raises(SystemExit) as leaving:
        launch(sys.exit, 0, args=(7,))
    assert leaving.value.code == 7


def test_two_ranks_meet(tmp_path):
    def main(folder):
        places = hd.all_gather((hd.get_rank(), hd.get_local_rank(), hd.get_local_size(), os.getpid()))
        assert [place[:3] for place in places] == [(0, 0, 2), (1, 1, 2)]
        assert places[0][3] != places[1][3]
        (Path(folder) / f"{hd.get_rank()}").write_text(str(torch.get_num_threads()))

    environ = dict(os.environ)
    on_two(main, str(tmp_path))
    expected = int(environ.get("OMP_NUM_THREADS") or max(1, len(os.sched_getaffinity(0)) // 2))
    assert [(tmp_path / name).read_text() for name in "01"] == [str(expected)] * 2


def test_ranks_start_processes_as_their_starter_does(tmp_path):
    def main(folder):
        method = multiprocessing.get_start_method()
        (Path(folder) / f"{hd.get_rank()}").write_text(method)

    on_two(main, str(tmp_path))
    assert [(tmp_path / name).read_text() for name in "01"] == [multiprocessing.get_start_method()] * 2


def test_the_exception_of_the_first_rank_is_raised():
    def main():
        hd.synchronize()
        if hd.get_rank() == 1:
            raise KeyError("its own words")
        hd.synchronize()

    with pytest.raises(KeyError, match="its own words") as error:
        on_two(main)
    cause = error.value.__cause__
    assert isinstance(cause, RankFailedError)
    assert cause.rank == 1
    assert 'raise KeyError("its own words")' in str(cause)
    assert str(cause).count("Traceback") == 1


@pytest.mark.slow
def test_an_exception_that_does_not_travel_is_told():
    def main():
        raise OddError(1, 2)

    with pytest.raises(RankFailedError, match="OddError: 1 and 2"):
        on_two(main)


@pytest.mark.slow
def test_a_rank_that_hangs_is_taken_down(monkeypatch):
    monkeypatch.setattr(launch_watch, "_TERM_GRACE_S", 1.0)

    def main():
        if hd.get_rank() == 1:
            raise ValueError("boom")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(300)

    start = time.monotonic()
    with pytest.raises(ValueError, match="boom"):
        on_two(main)
    assert time.monotonic() - start < 120


def test_a_killed_rank_is_named():
    def main():
        hd.synchronize()
        if hd.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        hd.synchronize()

    with pytest.raises(RankFailedError, match=r"rank 1 was killed by SIGKILL.*memory") as error:
        on_two(main)
    assert error.value.rank == 1


def test_the_exit_code_passes_and_the_others_may_finish(tmp_path):
    def main(folder):
        if hd.get_rank() == 0:
            time.sleep(1.5)
            (Path(folder) / "saved").write_text("whole")
        sys.exit(75)

    with pytest.raises(SystemExit) as leaving:
        on_two(main, str(tmp_path))
    assert leaving.value.code == 75
    assert (tmp_path / "saved").exists()


def test_a_rank_finishes_its_threads_and_exit_handlers(tmp_path):
    def main(folder):
        import atexit
        import threading

        def later():
            time.sleep(0.5)
            (Path(folder) / f"thread{hd_rank}").write_text("")

        hd_rank = hd.get_rank()
        atexit.register((Path(folder) / f"exit{hd_rank}").write_text, "")
        threading.Thread(target=later).start()
        print("buffered", end="")

    on_two(main, str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exit0", "exit1", "thread0", "thread1"]


@pytest.mark.slow
def test_leaving_with_zero_is_no_failure():
    on_two(lambda: sys.exit(0))
    on_two(lambda: sys.exit(None))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow)]
)
def test_signals_are_passed_on(tmp_path, number, code):
    program = script(tmp_path, WAITING)
    pids = pids_of_ranks(tmp_path)
    program.send_signal(number)
    output, _ = program.communicate(timeout=60)
    assert program.returncode == code, output
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("number", "kind"),
    [(signal.SIGTERM, SystemExit), pytest.param(signal.SIGINT, KeyboardInterrupt, marks=pytest.mark.slow)],
)
def test_a_signal_counts_where_python_ignores_exceptions(number, kind):
    def main(number):
        class Last:
            def __del__(self):
                os.kill(os.getpid(), number)
                time.sleep(0.1)

        Last()
        for _ in range(600):
            time.sleep(0.1)
        raise ValueError("the signal was lost")

    with pytest.raises(kind):
        on_two(main, number)


def test_a_sigterm_that_came_before_leaves_at_once():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as leaving:
        on_two(print, early_signal=lambda: signal.SIGTERM)
    assert leaving.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_early_signal_waits_for_the_handlers_of_the_ranks(tmp_path):
    def main(folder):
        from hookline.engine.triggers import SignalTrigger

        trigger = SignalTrigger()
        trigger.start()
        (Path(folder) / f"heard{hd.get_rank()}").write_text(str(trigger.reason))
        trigger.stop()

    on_two(main, str(tmp_path), early_signal=lambda: signal.SIGUSR1)
    for rank in range(2):
        assert (tmp_path / f"heard{rank}").read_text() == "signal SIGUSR1"
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.slow
def test_a_rank_may_answer_a_signal_in_its_own_way(tmp_path):
    body = """
        def main(folder):
            stop = []
            signal.signal(signal.SIGTERM, lambda *args: stop.append(1))
            Path(folder, f"pid{hd.get_rank()}").write_text(str(os.getpid()))
            while not hd.any_rank(bool(stop)):
                time.sleep(0.05)
            Path(folder, f"saved{hd.get_rank()}").write_text("")
            hd.synchronize()
            sys.exit(99)
    """
    program = script(tmp_path, body)
    pids_of_ranks(tmp_path)
    program.terminate()
    output, _ = program.communicate(timeout=60)
    assert program.returncode == 99, output
    assert (tmp_path / "saved0").exists()
    assert (tmp_path / "saved1").exists()


@pytest.mark.slow
@pytest.mark.parametrize("to_group", [True, False])
def test_ctrl_c_ends_all(tmp_path, to_group):
    program = script(tmp_path, WAITING)
    pids = pids_of_ranks(tmp_path)
    if to_group:
        os.killpg(program.pid, signal.SIGINT)
    else:
        program.send_signal(signal.SIGINT)
    output, _ = program.communicate(timeout=60)
    assert program.returncode in (-signal.SIGINT, 130)
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert output.count("Traceback") <= 1  # that of the starter, none of the ranks


@pytest.mark.slow
def test_no_orphan_when_the_starter_is_killed(tmp_path):
    program = script(tmp_path, WAITING)
    pids = pids_of_ranks(tmp_path)
    program.kill()
    program.communicate(timeout=60)
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))


@pytest.mark.slow
@pytest.mark.parametrize("pair", range(10))
def test_two_launches_at_once_do_not_clash(tmp_path, pair):
    body = """
        def main(folder):
            for _ in range(20):
                assert hd.all_gather(folder) == [folder, folder]  # nobody else's rank is among ours
    """
    programs = []
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        programs.append(script(tmp_path / str(number), body))
    for program in programs:
        output, _ = program.communicate(timeout=300)
        assert program.returncode == 0, output


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(LaunchError, match=f"port {port} is in use"):
            on_two(print, dist_url=f"tcp://127.0.0.1:{port}")


def test_machine_0_with_the_address_of_another_one_says_so_in_time():
    start = time.monotonic()
    port = free_port()
    with pytest.raises(LaunchError, match=rf"cannot reach itself at 192\.0\.2\.1:{port} within 1 s .*its own address"):
        serve_store(("192.0.2.1", port), timedelta(seconds=1))
    assert time.monotonic() - start < 20
    with socket.create_server(("127.0.0.1", port)):
        pass  # not held any more


def own_names():
    """Names and addresses of this machine; its host name is often not one of them."""
    with contextlib.suppress(OSError):
        return ["localhost", "127.0.0.1", socket.gethostbyname(socket.gethostname())]
    return ["localhost", "127.0.0.1"]


@pytest.mark.parametrize("host", own_names())
def test_a_store_at_a_port_of_our_choice(host):
    address = (host, free_port())
    store, where = serve_store(address, timedelta(seconds=20))
    assert where == address
    dist.TCPStore(*address, is_master=False).set("a", "1")
    assert store.get("a") == b"1"


@pytest.mark.slow
def test_two_machines_on_one(tmp_path):
    """Two starters meet at a fixed address."""
    port = free_port()
    code = textwrap.dedent(f"""
        import sys
        from hookline import distributed as hd
        from hookline.engine.launch import launch
        def main():
            assert hd.all_gather((hd.get_rank(), hd.get_local_rank())) == [(0, 0), (1, 1), (2, 0), (3, 1)]
        if __name__ == "__main__":
            launch(main, 0, 2, int(sys.argv[1]), "tcp://127.0.0.1:{port}", num_procs_per_machine=2)
    """)
    (tmp_path / "program.py").write_text(code)
    programs = [
        subprocess.Popen(
            [sys.executable, tmp_path / "program.py", str(rank)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (1, 0)
    ]
    for exit_code, output in ends_of(programs, timeout=120):
        assert exit_code == 0, output


@pytest.mark.slow
def test_under_torchrun(tmp_path):
    code = textwrap.dedent("""
        from hookline import distributed as hd
        from hookline.engine.launch import launch
        def main():
            assert hd.all_gather((hd.get_rank(), hd.get_local_rank(), hd.get_local_size())) == [(0, 0, 2), (1, 1, 2)]
            print("met")
        if __name__ == "__main__":
            launch(main, 0)
    """)
    (tmp_path / "program.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, tmp_path / "program.py"], capture_output=True, text=True, timeout=120, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("met") == 2


@pytest.mark.slow
def test_a_failure_under_torchrun_is_told_before_the_group_is_taken_down(tmp_path):
    code = textwrap.dedent("""
        import sys
        from hookline import distributed as hd
        from hookline.cli.errors import Reporter
        from hookline.engine import launch_rank
        from hookline.engine.checkpoint_errors import CheckpointError
        from hookline.engine.launch import launch
        def main():
            hd.synchronize()
            if hd.get_rank() == 1:
                raise CheckpointError("damaged")
            hd.synchronize()
        def disconnect(broken):
            print("disconnects", broken, file=sys.stderr, flush=True)
            disconnect_it(broken=broken)
        if __name__ == "__main__":
            disconnect_it, launch_rank.disconnect = launch_rank.disconnect, disconnect
            report = Reporter()
            try:
                launch(main, 0, on_failure=report)
            except Exception as error:
                sys.exit(report(error))
    """)
    (tmp_path / "program.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--redirects=3"]
    command += ["--log-dir", str(tmp_path / "logs"), str(tmp_path / "program.py")]
    subprocess.run(command, capture_output=True, text=True, timeout=200, cwd=tmp_path, check=False)
    (said,) = (path.read_text() for path in tmp_path.glob("logs/**/1/stderr.log"))
    lines = [line for line in said.splitlines() if line.startswith(("error", "disconnects"))]
    assert lines == ["error: rank 1: damaged", "disconnects True"], said


def test_the_roll_call_names_who_is_missing():
    store, address = serve_store(None)
    with pytest.raises(LaunchError, match=r"1 of 3 ranks came within 0\.2 s, missing: 0, 2"):
        meet(address, 1, 3, "gloo", timedelta(seconds=0.2))
    with pytest.raises(LaunchError, match=r"rank 1 came twice.*--machine-rank"):
        meet(address, 1, 3, "gloo", timedelta(seconds=0.2), store)
    with pytest.raises(LaunchError, match="rank 2 expects 3 ranks on nccl, another one expects 3 ranks on gloo"):
        meet(address, 2, 3, "nccl", timedelta(seconds=0.2))


@pytest.mark.parametrize(("world_size", "pause_s"), [(2, 0.05), (16, 0.05), (500, 0.5), (2000, 2.0)])
def test_the_more_ranks_the_less_often_each_looks(monkeypatch, world_size, pause_s):
    store, address = serve_store(None)
    pauses, now = [], itertools.count(step=0.4)
    clock = types.SimpleNamespace(sleep=pauses.append, monotonic=lambda: next(now))
    monkeypatch.setattr(launch_meet, "time", clock)
    with pytest.raises(LaunchError, match=f"1 of {world_size} ranks came"):
        meet(address, 1, world_size, "gloo", timedelta(seconds=1), store)
    assert set(pauses) == {pause_s}


@pytest.fixture
def place():
    """Rank 0 of two, whose machine serves the store; patient waits, but not for connections."""
    _store, address = serve_store(None)
    hours, seconds = timedelta(hours=2), timedelta(seconds=2)
    yield RankPlace(0, 2, 0, 2, address, use_gpu=False, backend="gloo", waits=Waits(hours, 2 * hours, seconds))
    assert not dist.is_initialized()


def test_a_rank_that_came_but_cannot_be_connected_to_is_told_in_time(place, capfd):
    threading.Thread(target=meet, args=(place.address, 1, 2, place.means, timedelta(seconds=5))).start()
    start = time.monotonic()
    with (
        pytest.raises(RendezvousError, match=r"all 2 ranks came, but.*within 2 s \(.*GLOO_SOCKET_IFNAME"),
        in_group(place),
    ):
        pass
    assert time.monotonic() - start < 30


def test_a_rank_with_a_gpu_and_one_without_do_not_train_together(place, capfd):
    on_gpu = replace(place, use_gpu=True)  # the backend is the same

    def come():
        with contextlib.suppress(LaunchError):
            meet(place.address, 1, 2, on_gpu.means, timedelta(seconds=5))

    thread = threading.Thread(target=come)
    thread.start()
    with (
        pytest.raises(LaunchError, match=r"expects 2 ranks on (the CPU|GPUs) by gloo, another one expects 2 ranks on"),
        in_group(place),
    ):
        pass
    thread.join()


def test_a_rank_is_noted_on_what_it_raises(place, capfd):
    with pytest.raises(KeyError) as found, in_group(replace(place, world_size=1)):
        raise KeyError("a")
    assert noted_rank(found.value) == 0


def test_the_group_is_gone_when_a_rank_does_not_get_so_far(place, monkeypatch, capfd):
    def fail(*args):
        assert dist.is_initialized()
        raise RendezvousError("not connected")

    monkeypatch.setattr(launch_rank, "wait_for_connected", fail)
    with pytest.raises(RendezvousError, match="not connected"), in_group(replace(place, world_size=1)):
        pass


@pytest.mark.slow
def test_the_times_of_waits_count_after_the_connections_are_made():
    def main():
        if hd.get_rank() == 1:
            time.sleep(6)
        hd.all_gather(0, patient=True)
        if hd.get_rank() == 1:
            time.sleep(60)
        hd.all_gather(0)

    start = time.monotonic()
    with pytest.raises(LostContactError, match=r"rank 0 waited 4 s \(train\.env\.timeout_s\)"):
        on_two(main, timeout=timedelta(seconds=4), eval_timeout=timedelta(seconds=50))
    assert time.monotonic() - start < 45


def test_the_store_of_another_run_is_left_alone():
    address = ("127.0.0.1", free_port())
    store, _ = serve_store(address, run="1250.0")
    with pytest.raises(LaunchError, match=r"another run meets \(1250\.0\), this one is 2500\.0: .*MASTER_PORT"):
        meet(address, 1, 3, "nccl", timedelta(seconds=5), run="2500.0")
    thread = threading.Thread(target=meet, args=(address, 1, 2, "gloo", timedelta(seconds=20), None, "1250.0"))
    thread.start()
    meet(address, 0, 2, "gloo", timedelta(seconds=20), store, "1250.0")
    thread.join()


def test_an_unreachable_master_is_named():
    port = free_port()
    with pytest.raises(LaunchError, match=rf"could not reach the rendezvous at 127\.0\.0\.1:{port} within 0\.3 s"):
        meet(("127.0.0.1", port), 0, 2, "gloo", timedelta(seconds=0.3))


def test_the_free_port_is_held_and_local():
    store, (host, port) = serve_store(None)
    assert host == "127.0.0.1"
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", port))
    del store


def test_gpus_that_are_not_there_are_refused():
    count = torch.cuda.device_count() + 1
    with pytest.raises(LaunchError, match=f"{count} GPUs were asked for"):
        launch(print, count)
