"""Suspension in one process: whatever asks for it, the resumed run ends like one that never stopped."""

import logging
import os
import signal
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from hookline.engine import Checkpointer, suspend
from hookline.engine.hooks import CallbackHook, EvalHook, PeriodicCheckpointer
from hookline.engine.suspend import EXIT_SUSPENDED, SuspendCheckpointer, Suspended, requeue_slurm_job
from hookline.engine.triggers import CallableTrigger, DeadlineTrigger, FileTrigger, SignalTrigger, Trigger

LAST = 8


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch):
    for name in ("MARSV2_NB_NAME", "HFAI_SIMULATE", "SLURM_JOB_ID"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(make_trainer, tmp_path):
    """Train in a folder, from where it stands; returns the trainer, and the code if it was suspended."""

    def run(hooks=(), period=100, folder="run", before=(), asynchronous=False, max_iter=LAST, trainer=None, **settings):
        trainer = make_trainer(**(trainer or {}))
        checkpointer = Checkpointer(trainer.model, tmp_path / folder, trainer=trainer, asynchronous=asynchronous)
        hook = SuspendCheckpointer(checkpointer, **settings)
        trainer.register_hooks([*before, PeriodicCheckpointer(checkpointer, period), *hooks, hook])
        try:
            trainer.train(checkpointer.resume() + 1, max_iter)
        except Suspended as leaving:
            return trainer, checkpointer, leaving.code
        return trainer, checkpointer, None

    return run


@pytest.fixture
def expected(run):
    def weights(**settings):
        return run(folder="whole", triggers=[], **settings)[0].model.state_dict()

    return weights


def at(iteration, do, moment="after_backward"):
    """A hook that does something once, in the middle of a step."""
    return CallbackHook(**{moment: lambda trainer: do() if trainer.iter == iteration else None})


def equal(a, b):
    return all(torch.equal(value, b[name]) for name, value in a.items())


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "run").glob("*.pth"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_signal(run, expected, tmp_path, number, asynchronous):
    before = signal.getsignal(number)
    trainer, _, code = run(before=[at(3, lambda: os.kill(os.getpid(), number))], asynchronous=asynchronous)
    assert (trainer.iter, code) == (3, 128 + number)
    assert names(tmp_path) == ["model_0000003.pth"]
    assert signal.getsignal(number) == before
    trainer, _, code = run()
    assert code is None
    assert equal(trainer.model.state_dict(), expected())


def test_during_gradient_accumulation(run, expected, stream):
    class Interrupting(stream):
        def __iter__(self):
            for batch in super().__iter__():
                if self.position == 8:  # the second of the three batches of step 2
                    os.kill(os.getpid(), signal.SIGTERM)
                yield batch

    settings = {"trainer": {"accumulate": 3}}
    trainer, _, code = run(trainer={"accumulate": 3, "loader": Interrupting()})
    assert (trainer.iter, code) == (2, 143)
    assert equal(run(**settings)[0].model.state_dict(), expected(**settings))


def test_a_flag_file(run, expected, tmp_path):
    flag = tmp_path / "stop"

    def wait():
        flag.touch()
        time.sleep(0.1)

    trigger = FileTrigger(flag, interval_s=0.01)
    trainer, _, code = run(before=[at(2, wait)], triggers=[trigger], exit_code=3)
    assert (trainer.iter, code) == (2, 3)
    _, _, code = run(triggers=[FileTrigger(flag, interval_s=0.01)])  # it still lies there
    assert code == EXIT_SUSPENDED
    flag.unlink()
    assert equal(run()[0].model.state_dict(), expected())


def test_a_callable_and_a_deadline(run, expected):
    flag = []
    trigger = CallableTrigger(lambda: bool(flag), interval_s=0.001)
    trainer, _, code = run(before=[at(1, lambda: (flag.append(1), time.sleep(0.1), flag.clear()))], triggers=[trigger])
    assert (trainer.iter, code) == (1, EXIT_SUSPENDED)
    deadline = DeadlineTrigger(0.2)
    trainer, _, code = run(before=[at(4, lambda: time.sleep(0.25))], triggers=[deadline])
    assert (trainer.iter, code) == (4, EXIT_SUSPENDED)
    assert equal(run()[0].model.state_dict(), expected())


class Asked(Trigger):
    def __init__(self, reason="somebody asked"):
        self.answer = reason

    def start(self):
        self.reason = None


def ask(trigger):
    return lambda: trigger.fire(trigger.answer)


def test_what_is_saved_already_is_not_saved_again(run, caplog, tmp_path):
    trigger = Asked()
    with caplog.at_level(logging.INFO):
        run(before=[at(3, ask(trigger))], triggers=[trigger], period=4)
    assert "Iteration 3 is saved already" in caplog.text
    assert names(tmp_path) == ["model_0000003.pth"]


def test_the_system_is_told_when_the_state_is_saved(run, tmp_path):
    trigger, told = Asked(), []
    run(before=[at(3, ask(trigger))], triggers=[trigger], on_suspend=lambda: told.append(names(tmp_path)))
    assert told == [["model_0000003.pth"]]


def test_a_failing_save_does_not_keep_the_system_from_being_told(run, monkeypatch, caplog):
    def fail(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(Checkpointer, "save", fail)
    trigger, told = Asked(), []
    _, _, code = run(before=[at(3, ask(trigger))], triggers=[trigger], on_suspend=lambda: told.append(1))
    assert (told, code) == ([1], EXIT_SUSPENDED)
    assert "no space left" in caplog.text


def test_telling_may_fail(run, caplog):
    trigger = Asked()
    _, _, code = run(before=[at(3, ask(trigger))], triggers=[trigger], on_suspend=requeue_slurm_job)
    assert code == EXIT_SUSPENDED
    assert "SLURM_JOB_ID is not set" in caplog.text


def test_the_time_given_is_compared(run, caplog):
    trigger = Asked()
    run(before=[at(3, ask(trigger))], triggers=[trigger], grace_s=0.0, period=2)
    assert "but a suspension gives 0 s" in caplog.text  # as soon as a periodic save was measured
    assert "ask for more time" in caplog.text


def test_at_the_last_step_the_run_ends_by_itself(run, tmp_path, caplog):
    trigger = Asked()
    trainer, _, code = run(before=[at(LAST - 1, ask(trigger))], triggers=[trigger])
    assert (code, trainer.iter) == (None, LAST)
    assert names(tmp_path) == ["model_final.pth"]


def test_asked_before_the_first_step(run, tmp_path):
    class Early(Asked):
        def start(self):
            self.fire("early")

    trainer, _, code = run(triggers=[Early()])
    assert (code, trainer.iter, names(tmp_path)) == (EXIT_SUSPENDED, 0, [])


def test_hfai(run, monkeypatch):
    """Its client raises a flag for a moment; go_suspend returns outside of the cluster, so the loop ends by itself."""
    calls = []
    client = SimpleNamespace(receive_suspend_command=lambda: len(calls) == 1, go_suspend=lambda: calls.append("go"))
    monkeypatch.setenv("MARSV2_NB_NAME", "job")
    monkeypatch.setitem(sys.modules, "hfai", SimpleNamespace(client=client))
    monkeypatch.setitem(sys.modules, "hfai.client", client)
    polling = CallableTrigger(client.receive_suspend_command, interval_s=0.001)
    before = [at(2, lambda: (calls.append("flag"), time.sleep(0.1)))]
    trainer, _, code = run(before=before, triggers=[SignalTrigger(), polling])
    assert (trainer.iter, calls, code) == (2, ["flag", "go"], EXIT_SUSPENDED)


class InterruptedError_(Exception):
    pass


def interruptible(trigger, hook_iter, calls):
    """An evaluation that finds, half way, that the run is to stop."""

    def evaluate():
        calls.append(hook_iter())
        if trigger.armed:
            trigger.armed = False
            trigger.fire("while evaluating")
            raise InterruptedError_("asked to stop")
        return {"AP": float(hook_iter())}

    return evaluate


@pytest.mark.parametrize(("when", "stopped_at", "evaluated"), [(3, 3, [3, 3, 8]), (LAST, LAST, [3, 8, 8])])
def test_during_an_evaluation(run, expected, when, stopped_at, evaluated):
    calls, state = [], {}

    def attempt(armed):
        trigger = Asked()
        trigger.armed = False
        hook = EvalHook(4, interruptible(trigger, lambda: state["at"](), calls), interruption=InterruptedError_)
        state["at"] = lambda: hook.trainer.iter

        def arm():
            trigger.armed = armed

        moment = at(min(when, LAST - 1), arm)
        return run(before=[moment], hooks=[hook], triggers=[trigger])

    trainer, _, code = attempt(armed=True)
    assert (trainer.iter, code) == (stopped_at, EXIT_SUSPENDED)
    state_before = dict(trainer.storage.latest())
    trainer, _, code = attempt(armed=False)
    assert code is None
    assert ("AP" in state_before) == (when == LAST)
    history = trainer.storage.history("AP").values()
    assert history == ([(4.0, 3), (8.0, 8)] if when == 3 else [(3.0, 3), (8.0, 8)])
    assert calls == ([3, 4, 8] if when == 3 else evaluated)
    assert equal(trainer.model.state_dict(), expected())


def test_refusals(run):
    with pytest.raises(ValueError, match="period=0"):
        SuspendCheckpointer(None, triggers=[], period=0)
    with pytest.raises(RuntimeError, match="SLURM_JOB_ID"):
        suspend.requeue_slurm_job()
    with pytest.raises(RuntimeError, match=r"hfai\.client"):
        suspend.go_suspend()


def test_a_run_that_dies_names_rank_iteration_and_files(make_trainer, caplog):
    def fail(trainer):
        if trainer.iter == 3:
            raise MemoryError("none left")

    with pytest.raises(MemoryError):
        make_trainer([CallbackHook(after_backward=fail)]).train(0, 5)
    assert "rank 0 failed at iteration 3 with MemoryError; its batch: 0006.jpg, 0007.jpg" in caplog.messages
