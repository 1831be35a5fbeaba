import logging

from hookline.engine.hooks import CallbackHook, IterationTimer, timing


class Clock:
    """A clock that ticks one second at each step."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

    def tick(self, trainer):
        self.now += 1.0


def test_records_the_time_of_each_step_after_the_first_ones(make_trainer, caplog, monkeypatch):
    clock = Clock(monkeypatch)
    hook = IterationTimer(warmup_iter=3)
    trainer = make_trainer([hook, CallbackHook(after_backward=clock.tick, after_step=clock.tick)])
    with caplog.at_level(logging.INFO):
        trainer.train(5, 15)
    assert trainer.storage.history("time").values() == [(1.0, i) for i in range(8, 15)]
    assert "Overall training speed: 7 iterations in 0:00:07 (1.0000 s / it)" in caplog.text
    assert "Total training time: 0:00:20 (0:00:13 on hooks)" in caplog.text


def test_times_add_up_over_resumes(make_trainer, caplog, monkeypatch):
    clock = Clock(monkeypatch)
    state = {}
    for start, end in ((0, 10), (10, 20)):
        hook = IterationTimer(warmup_iter=0)
        trainer = make_trainer([hook, CallbackHook(after_backward=clock.tick)])
        if state:
            hook.load_state_dict(state)
        with caplog.at_level(logging.INFO):
            trainer.train(start, end)
        state = hook.state_dict()
        clock.now += 500.0  # nobody trains between the runs
    assert state == {"total_s": 20.0, "steps_s": 20.0, "steps": 20}
    assert "20 iterations in 0:00:20" in caplog.text


def test_ends_in_order_when_training_never_began(make_trainer, caplog):
    with caplog.at_level(logging.INFO):
        make_trainer([IterationTimer()]).train(3, 3)
    assert "Overall training speed" not in caplog.text
    assert "Total training time" in caplog.text
