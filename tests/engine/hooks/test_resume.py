import logging

import pytest

from hookline.engine import Checkpointer, CheckpointError
from hookline.engine.hooks import EvalHook, LRScheduler, ResumeReport


@pytest.fixture
def run(make_trainer, stream, tmp_path, caplog):
    """Train to an iteration in one and the same folder; returns what the run logged."""

    class Fingerprinted(stream):
        num_workers = 0

        def __init__(self, **changes):
            super().__init__()
            self.data = {"dataset_size": 10, "ids_sha256": "a", "total_batch_size": 2, "seed": 0} | changes

        def fingerprint(self):
            return self.data

    def run(max_iter, *, data=(), hooks=(), settings=None, allow=False, workers=0, loader=None, report=True, **trainer):
        loader = loader or Fingerprinted(**dict(data))
        loader.num_workers = workers
        trainer = make_trainer(loader=loader, **trainer)
        trainer.register_hooks(
            [
                LRScheduler(scheduler=lambda progress: 1 - progress),
                ResumeReport(settings, allow_changed_data=allow) if report else None,
                *hooks,
            ]
        )
        checkpointer = Checkpointer(trainer.model, tmp_path, trainer=trainer)
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="hookline"):
            trainer.train(checkpointer.resume() + 1, max_iter)
        checkpointer.save(f"model_{max_iter - 1:07d}", iteration=max_iter - 1)
        return caplog.text

    return run


def rows(text):
    """Squeeze the spaces out of the table."""
    return [" ".join(line.split()) for line in text.splitlines()]


def test_a_fresh_run_has_no_table(run):
    assert "Resumed" not in run(4)


def test_an_unchanged_run_says_so(run):
    run(4)
    table = rows(run(4))
    assert "learning rate of the next step 0.025 0.025 kept" in table
    assert not [row for row in table if row.endswith(" changed")]


def test_a_longer_run_says_what_happens_to_the_learning_rate(run):
    run(4)
    text = run(8)
    assert "Resumed at iteration 4 of 8" in text
    assert "max_iter 4 8 changed" in rows(text)
    assert "learning rate of the next step 0.025 0.05 changed" in rows(text)


def test_hooks_and_settings_are_compared(run):
    run(4, settings={"schedule": "cosine"}, hooks=[EvalHook(0, dict)])
    table = rows(run(6, settings={"schedule": "step"}, workers=3, precision="bf16", lr=0.5))
    assert "hooks: EvalHook missing in this run" in table
    assert "schedule cosine step changed" in table
    assert "workers 0 3 changed; samples and order stay" in table
    assert "optimizer.lr 0.1 0.5 no effect: the resumed optimizer's is kept" in table
    table = rows(run(8, settings={"schedule": "step"}, hooks=[EvalHook(0, dict)]))
    assert "hooks: EvalHook new, start fresh" in table


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"total_batch_size": 4}}, "global batch size: 2 before, 4 now"),
        ({"data": {"dataset_size": 11}}, "number of samples: 10 before, 11 now"),
        ({"data": {"ids_sha256": "b"}}, "ids"),
        ({"accumulate": 2}, "accumulate"),
    ],
)
def test_other_data_is_refused_unless_allowed(run, change, words):
    run(4)
    with pytest.raises(CheckpointError, match=r"train\.allow_changed_data=True") as error:
        run(8, **change)
    assert words in str(error.value)
    assert "changed, as allowed" in run(8, allow=True, **change)


def test_an_older_checkpoint_has_no_record(run):
    run(4, report=False)
    assert "no record of the settings" in run(8)


def test_a_loader_without_fingerprint_is_no_reason_to_refuse(run, stream):
    run(4, loader=stream())
    assert "Resumed at iteration 4 of 6" in run(6)
