import pytest
import torch

from hookline.engine import EventWriter, Every
from hookline.engine.hooks import CallbackHook, PeriodicWriter, writing


class Noting(EventWriter):
    def __init__(self, hook=None):
        self.notes = []
        self.trainer = None

    def begin(self, start_iter):
        self.notes.append(("begin", start_iter))

    def write(self):
        from hookline.engine import get_event_storage

        storage = get_event_storage()
        self.notes.append((storage.iter, len(storage.pictures())))

    def close(self):
        self.notes.append("closed")


def test_timeline(make_trainer):
    writer = Noting()
    trainer = make_trainer([PeriodicWriter([writer], period=20)])
    trainer.train(0, 45)
    assert writer.notes == [("begin", 0), (19, 0), (39, 0), (44, 0), (45, 0), "closed"]


def test_period_as_a_value(make_trainer):
    writer = Noting()
    make_trainer([PeriodicWriter([writer], Every(5, first=10))]).train(0, 12)
    assert writer.notes == [("begin", 0), (9, 0), (12, 0), "closed"]


def test_images_are_forgotten_when_all_have_seen_them(make_trainer):
    writers = [Noting(), Noting()]
    image = CallbackHook(after_step=lambda t: t.storage.put_image("x", torch.zeros(3, 1, 1)))
    trainer = make_trainer([image, PeriodicWriter(writers, period=2)])
    trainer.train(0, 4)
    assert writers[0].notes == writers[1].notes == [("begin", 0), (1, 2), (3, 2), (4, 0), "closed"]


def test_written_and_closed_when_training_fails(make_trainer):
    def fail(trainer):
        raise KeyError

    writer = Noting()
    with pytest.raises(KeyError):
        make_trainer([CallbackHook(before_step=fail), PeriodicWriter([writer])]).train(0, 4)
    assert writer.notes == [("begin", 0), (0, 0), "closed"]


def test_a_failing_writer_is_told_once_and_stops_nothing(make_trainer, caplog):
    class Failing(Noting):
        def fail(self, *args):
            raise OSError("disk full")

        begin = write = conclude = state_dict = fail

        def close(self):
            super().close()
            self.fail()

    failing, other = Failing(), Noting()
    hook = PeriodicWriter([failing, other], period=1)
    trainer = make_trainer([hook])
    trainer.train(0, 4)
    assert trainer.iter == 4
    assert hook.state_dict() == {}
    assert failing.notes == ["closed"]
    assert other.notes == [("begin", 0), (0, 0), (1, 0), (2, 0), (3, 0), (4, 0), "closed"]
    assert len([record for record in caplog.records if "disk full" in record.getMessage()]) == 1
    assert "Failing failed in begin() with OSError" in caplog.text


class Careful(Noting):
    def catch_up(self):
        self.notes.append("catch up")

    def conclude(self, finished):
        self.notes.append(("finished", finished))

    def state_dict(self):
        return {"notes": len(self.notes)}

    def load_state_dict(self, state):
        self.notes.append(("restored", state["notes"]))


def test_the_step_before_a_resume_is_made_up_for_where_it_was_to_be_written(make_trainer):
    notes = []
    for start in (4, 5, 10):
        writer = Careful()
        make_trainer([PeriodicWriter([writer], period=5)]).train(start, 10)
        notes.append(writer.notes[:2])
    assert notes == [[("begin", 4), (4, 0)], [("begin", 5), "catch up"], [("begin", 10), "catch up"]]


def test_writers_learn_how_training_ended(make_trainer):
    def fail(trainer):
        raise KeyError

    writer = Careful()
    make_trainer([PeriodicWriter([writer])]).train(0, 2)
    assert writer.notes[-2:] == [("finished", True), "closed"]
    with pytest.raises(KeyError):
        make_trainer([CallbackHook(after_step=fail), PeriodicWriter([writer])]).train(0, 2)
    assert writer.notes[-2:] == [("finished", False), "closed"]


def test_nothing_is_written_where_the_writers_did_not_begin(make_trainer):
    def fail(trainer):
        raise KeyError

    writer = Noting()
    with pytest.raises(KeyError):
        make_trainer([CallbackHook(before_train=fail), PeriodicWriter([writer])]).train(0, 4)
    assert writer.notes == ["closed"]


def test_each_writer_gets_its_own_state_back():
    hook = PeriodicWriter([Careful(), Noting(), Careful()])
    hook._writers[2].notes.append("one more")
    state = hook.state_dict()
    assert state == {"Careful": {"notes": 0}, "Careful#2": {"notes": 1}}
    other = PeriodicWriter([Careful(), Careful()])
    other.load_state_dict(state)
    assert [writer.notes for writer in other._writers] == [[("restored", 0)], [("restored", 1)]]


def test_ranks_without_writers(make_trainer):
    trainer = make_trainer([PeriodicWriter([])])
    trainer.train(0, 2)
    assert trainer.iter == 2


def test_refuses_what_is_no_writer():
    with pytest.raises(TypeError, match=r"'metrics\.json' is str"):
        PeriodicWriter(["metrics.json"])


def test_warns_when_written_losses_are_not_those_of_all_ranks(make_trainer, caplog, monkeypatch):
    monkeypatch.setattr(writing, "get_world_size", lambda: 2)
    make_trainer([PeriodicWriter([Noting()], period=30)]).train(0, 1)
    assert "averaged over ranks every 20" in caplog.text
    caplog.clear()
    make_trainer([PeriodicWriter([Noting()], period=40)]).train(0, 1)
    assert "averaged" not in caplog.text
