import gc
import logging
import weakref

import pytest

from hookline.engine import EventStorage, HookBase, TrainerBase
from hookline.engine.hooks import CallbackHook
from hookline.engine.train_loop import MOMENTS


class Steps(TrainerBase):
    """Notes what happens; fails at an iteration."""

    def __init__(self, notes, fail_at=None):
        super().__init__()
        self.notes, self.fail_at = notes, fail_at

    def run_step(self):
        self.notes.append(f"step {self.iter}")
        if self.iter == self.fail_at:
            raise ZeroDivisionError("in the step")
        self.after_backward()


class Noting(HookBase):
    def __init__(self, name, notes):
        self.name, self.notes = name, notes

    def note(self, moment):
        self.notes.append(f"{self.name}.{moment} {self.trainer.iter}")


for _moment in MOMENTS:
    setattr(Noting, _moment, lambda self, moment=_moment: self.note(moment))


def test_timeline_of_all_moments():
    notes = []
    trainer = Steps(notes)
    trainer.register_hooks([Noting("a", notes), None, Noting("b", notes)])
    trainer.train(3, 5)
    expected = ["a.before_train 3", "b.before_train 3"]
    for i in (3, 4):
        expected += [f"a.before_step {i}", f"b.before_step {i}", f"step {i}"]
        expected += [f"a.after_backward {i}", f"b.after_backward {i}", f"a.after_step {i}", f"b.after_step {i}"]
    assert notes == [*expected, "a.after_train 5", "b.after_train 5"]
    assert (trainer.start_iter, trainer.iter, trainer.max_iter) == (3, 5, 5)


def test_only_overridden_moments_are_called():
    class Quiet(HookBase):
        def after_step(self):
            pass

    quiet, dynamic = Quiet(), HookBase()
    dynamic.before_step = lambda: None
    trainer = Steps([])
    trainer.register_hooks([quiet, dynamic, CallbackHook(after_train=lambda trainer: None)])
    assert {m: len(trainer._calls[m]) for m in MOMENTS} == {
        "before_train": 0, "before_step": 1, "after_backward": 0, "after_step": 1, "after_train": 1,
    }  # fmt: skip


def test_hooks_may_be_reordered_before_training():
    """A widespread idiom: put the writer, which is last, behind one's own hook."""
    notes = []
    trainer = Steps(notes)
    trainer.register_hooks([Noting("writer", notes)])
    trainer.register_hooks([Noting("mine", notes)])
    trainer._hooks = trainer._hooks[:-2] + trainer._hooks[-2:][::-1]
    trainer.train(0, 1)
    assert notes[:2] == ["mine.before_train 0", "writer.before_train 0"]


def test_a_hook_may_register_a_hook_while_training():
    notes = []
    trainer = Steps(notes)
    trainer.register_hooks([
        CallbackHook(after_step=lambda t: t.iter == 0 and t.register_hooks([Noting("late", notes)]))
    ])  # fmt: skip
    trainer.train(0, 2)
    assert "late.before_step 1" in notes
    assert notes[-1] == "late.after_train 2"


class TestFailures:
    def test_after_train_is_called_and_iter_tells(self):
        notes = []
        trainer = Steps(notes, fail_at=1)
        trainer.register_hooks([Noting("a", notes)])
        with pytest.raises(ZeroDivisionError, match="in the step"):
            trainer.train(0, 4)
        assert notes[-1] == "a.after_train 1"

    def test_the_first_exception_is_never_hidden(self, caplog):
        def fail(trainer):
            raise KeyError("in the hook")

        notes = []
        trainer = Steps(notes, fail_at=1)
        trainer.register_hooks([CallbackHook(after_train=fail), Noting("b", notes), CallbackHook(after_train=fail)])
        with caplog.at_level(logging.ERROR), pytest.raises(ZeroDivisionError):
            trainer.train(0, 4)
        assert notes[-1] == "b.after_train 1"
        assert caplog.text.count("in the hook") >= 2

    def test_a_failing_after_train_alone_is_raised_after_all_others(self):
        def fail(trainer):
            raise KeyError("in the hook")

        notes = []
        trainer = Steps(notes)
        trainer.register_hooks([CallbackHook(after_train=fail), Noting("b", notes)])
        with pytest.raises(KeyError, match="in the hook"):
            trainer.train(0, 2)
        assert notes[-1] == "b.after_train 2"

    def test_interrupts_and_exits_too(self):
        for kind in (KeyboardInterrupt, SystemExit):
            notes = []

            def stop(trainer, kind=kind):
                raise kind

            trainer = Steps(notes)
            trainer.register_hooks([Noting("a", notes), CallbackHook(after_step=stop)])
            with pytest.raises(kind):
                trainer.train(0, 4)
            assert notes[-1] == "a.after_train 0"

    def test_failing_before_train(self):
        def fail(trainer):
            raise KeyError

        notes = []
        trainer = Steps(notes)
        trainer.register_hooks([CallbackHook(before_train=fail), Noting("a", notes)])
        with pytest.raises(KeyError):
            trainer.train(0, 4)
        assert notes == ["a.after_train 0"]


class TestRegisterHooks:
    @pytest.mark.parametrize(("foreign", "named"), [("print", "'print' of type str"), (3, "3 of type int")])
    def test_refuses_foreign_objects(self, foreign, named):
        trainer = Steps([])
        with pytest.raises(TypeError, match=named):
            trainer.register_hooks([HookBase(), foreign])
        assert trainer._hooks == []

    def test_a_class_instead_of_an_object(self):
        with pytest.raises(TypeError, match=r"did you mean CallbackHook\(...\)"):
            Steps([]).register_hooks([CallbackHook])

    def test_hooks_keep_no_trainer_alive(self):
        hook = Noting("a", [])
        trainer = Steps([])
        trainer.register_hooks([hook, CallbackHook(after_step=lambda t: None)])
        trainer.train(0, 2)
        known = weakref.ref(trainer)
        collecting = gc.isenabled()
        gc.disable()
        try:
            del trainer
            assert known() is None
        finally:
            if collecting:
                gc.enable()


def test_storage_follows_the_iteration_and_stays_readable():
    seen = []
    trainer = Steps([])
    trainer.register_hooks([
        CallbackHook(before_step=lambda t: seen.append(t.storage.iter)),
        CallbackHook(after_train=lambda t: t.storage.put_scalar("end", 1.0)),
    ])  # fmt: skip
    trainer.train(5, 8)
    assert seen == [5, 6, 7]
    assert trainer.storage.latest() == {"end": (1.0, 8)}


def test_nothing_to_do():
    notes = []
    trainer = Steps(notes)
    trainer.register_hooks([Noting("a", notes)])
    trainer.train(5, 5)
    assert notes == ["a.before_train 5", "a.after_train 5"]
    trainer.train(7, 5)
    assert trainer.iter == 7


def test_run_step_is_for_subclasses():
    with pytest.raises(NotImplementedError, match="TrainerBase"):
        TrainerBase().train(0, 1)


class Counting(HookBase):
    def __init__(self):
        self.count = 0

    def after_step(self):
        self.count += 1

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


class TestState:
    def test_hooks_of_one_class_have_own_keys(self, caplog):
        trainer, other = Steps([]), Steps([])
        trainer.register_hooks([Counting(), HookBase(), Counting(), Counting()])
        for n, hook in enumerate(trainer._hooks):
            hook.count = n
        state = trainer.hooks_state_dict()
        assert state == {"Counting": {"count": 0}, "Counting#2": {"count": 2}, "Counting#3": {"count": 3}}
        other.register_hooks([Counting(), Counting()])
        with caplog.at_level(logging.WARNING):
            other.load_hooks_state_dict(state)
        assert [hook.count for hook in other._hooks] == [0, 2]
        assert "Counting#3" in caplog.text

    def test_trainer_state(self):
        trainer, other = Steps([]), Steps([])
        trainer.register_hooks([CallbackHook(after_step=lambda t: t.storage.put_scalar("x", t.iter))])
        trainer.train(0, 3)
        state = trainer.state_dict()
        assert state["iteration"] == 3
        assert state["storage"]["x"]["values"] == [0.0, 1.0, 2.0]
        other.load_state_dict(state)
        assert other.elapsed_s == state["elapsed_s"] > 0
        other.train(3, 4)
        assert other.elapsed_s > state["elapsed_s"]
        assert [v for v, _ in other.storage.history("x").values()] == [0.0, 1.0, 2.0]

    def test_checkpointables_keep_no_trainer_alive(self):
        trainer = Steps([])
        trainer.register_hooks([Counting()])
        parts = trainer.checkpointables()
        assert parts["hooks"].state_dict() == {"Counting": {"count": 0}}
        parts["hooks"].load_state_dict({"Counting": {"count": 4}})
        assert trainer._hooks[0].count == 4
        assert parts["trainer"].state_dict()["iteration"] == 0
        known = weakref.ref(trainer)
        del trainer
        assert known() is None


def test_the_loop_is_short():
    import inspect

    assert len(inspect.getsource(TrainerBase.train).splitlines()) < 30


def test_storage_of_the_caller_is_found_again():
    with EventStorage() as storage:
        Steps([]).train(0, 1)
        from hookline.engine import get_event_storage

        assert get_event_storage() is storage
