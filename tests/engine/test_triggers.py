import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from hookline.engine import job_systems, triggers
from hookline.engine.triggers import CallableTrigger, DeadlineTrigger, FileTrigger, SignalTrigger, default_triggers


@pytest.fixture
def started():
    made = []

    def start(trigger):
        made.append(trigger)
        trigger.start()
        return trigger

    yield start
    for trigger in made:
        trigger.stop()


def wait_for(trigger):
    end = time.monotonic() + 20
    while not trigger.fired():
        assert time.monotonic() < end, "the trigger did not fire"
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_sets_the_latch_and_nothing_else(started, number):
    before = signal.getsignal(number)
    trigger = started(SignalTrigger())
    assert not trigger.fired()
    os.kill(os.getpid(), number)
    assert trigger.fired()
    assert trigger.reason == f"signal {number.name}"
    os.kill(os.getpid(), signal.SIGUSR2)  # delivered twice, by the scheduler and by the starter
    assert trigger.reason == f"signal {number.name}"
    trigger.stop()
    assert signal.getsignal(number) == before


def test_starting_twice_keeps_the_handlers_to_be_restored(started):
    before = signal.getsignal(signal.SIGTERM)
    trigger = started(SignalTrigger())
    trigger.start()
    trigger.stop()
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_signal_ends_the_process_at_once():
    code = (
        "import os, signal, time\n"
        "from hookline.engine import triggers\n"
        "from hookline import signals\n"
        "signals.REPEATED_S = 0.1\n"
        "triggers.SignalTrigger().start()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
        "time.sleep(0.2)\n"
        "print('alive', flush=True)\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "time.sleep(60)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("alive\n", -signal.SIGTERM)


def test_only_the_main_thread_can_listen_to_signals():
    errors = []

    def start():
        try:
            SignalTrigger().start()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in errors[0]


def handlers(pipe):
    pipe.send([signal.getsignal(number) == signal.SIG_IGN for number in SignalTrigger().signals])


def test_data_workers_do_not_inherit_the_handlers(started):
    started(SignalTrigger())
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=handlers, args=(there,))
    process.start()
    assert here.recv() == [True] * 3
    process.join()
    assert signal.getsignal(signal.SIGTERM) != signal.SIG_IGN


def test_a_file(started, tmp_path):
    trigger = started(FileTrigger(tmp_path / "stop", interval_s=0.01))
    assert not trigger.fired()
    (tmp_path / "stop").touch()
    wait_for(trigger)
    (tmp_path / "stop").unlink()
    assert trigger.fired()
    assert str(tmp_path / "stop") in trigger.reason


def test_the_first_true_of_a_callable_is_latched(started):
    answers = iter([False, 0, True])
    trigger = started(CallableTrigger(lambda: next(answers, False), interval_s=0.001, name="flag"))
    wait_for(trigger)
    time.sleep(0.01)
    assert trigger.reason == "flag()"


def test_a_poll_that_fails_is_said_once_and_tried_again(started, caplog):
    calls = []

    def poll():
        calls.append(1)
        if len(calls) < 4:
            raise ConnectionError("no route")
        return True

    wait_for(started(CallableTrigger(poll, interval_s=0.001)))
    assert [m for m in caplog.messages if "no route" in m] == [
        "CallableTrigger: polling failed (ConnectionError: no route)"
    ]


def test_a_deadline(started):
    assert started(DeadlineTrigger(0.0)).fired()
    assert not started(DeadlineTrigger(1000)).fired()
    assert started(DeadlineTrigger(1000, margin_s=1001)).fired()
    assert started(DeadlineTrigger(at=time.time() - 1)).fired()
    trigger = started(DeadlineTrigger(0.05))
    wait_for(trigger)
    assert "deadline" in trigger.reason


def test_slurms_end_of_time(started, monkeypatch, tmp_path):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    with pytest.raises(RuntimeError, match="no Slurm job"):
        DeadlineTrigger()
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 100))
    assert not started(DeadlineTrigger(margin_s=50)).fired()
    assert started(DeadlineTrigger(margin_s=150)).fired()
    monkeypatch.delenv("SLURM_JOB_END_TIME")  # as with Slurm 22
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho ' JobId=7 EndTime=2026-11-20T12:00:00'\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert job_systems.slurm_end_time() == time.mktime((2026, 11, 20, 12, 0, 0, 0, 0, -1))
    (tmp_path / "scontrol").write_text("#!/bin/sh\necho ' EndTime=Unknown'\n")
    with pytest.raises(RuntimeError, match="no end time"):
        job_systems.slurm_end_time()


def test_refusals():
    with pytest.raises(ValueError, match="give one of them"):
        DeadlineTrigger(1.0, at=2.0)
    with pytest.raises(ValueError, match="interval_s=0"):
        FileTrigger("x", interval_s=0)


def test_hfais_flag_is_found_on_its_cluster_only(monkeypatch, caplog):
    client = SimpleNamespace(receive_suspend_command=lambda: True)
    job_systems._say_once.cache_clear()  # it may have been said in an earlier test
    for name in ("MARSV2_NB_NAME", "HFAI_SIMULATE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "hfai", SimpleNamespace(client=client))
    monkeypatch.setitem(sys.modules, "hfai.client", client)
    assert [type(t) for t in default_triggers()] == [SignalTrigger]
    monkeypatch.setenv("HFAI_SIMULATE", "1")
    found = default_triggers()[1]
    assert found.function is client.receive_suspend_command
    monkeypatch.setitem(sys.modules, "hfai.client", None)
    assert [type(t) for t in default_triggers()] == [SignalTrigger]
    assert [type(t) for t in default_triggers()] == [SignalTrigger]
    assert caplog.text.count("cannot be imported") == 1


def test_nothing_stays_known_of_a_stopped_trigger(started):
    trigger = started(SignalTrigger())
    assert trigger in triggers._LISTENING
    trigger.stop()
    assert trigger not in triggers._LISTENING
