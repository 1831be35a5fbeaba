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


def test_closed_when_writing_fails(make_trainer):
    class Failing(Noting):
        def write(self):
            raise OSError("disk full")

    writer = Failing()
    with pytest.raises(OSError, match="disk full"):
        make_trainer([PeriodicWriter([writer])]).train(0, 4)
    assert writer.notes[-1] == "closed"


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
