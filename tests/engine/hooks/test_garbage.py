import gc
import multiprocessing
import weakref

import pytest

from hookline.engine.hooks import CallbackHook, GarbageCollection


class Cycle:
    def __init__(self):
        self.self = self


def test_garbage_is_collected_at_its_iterations_only(make_trainer):
    made, alive = {}, {}

    def make(trainer):
        made[trainer.iter] = weakref.ref(Cycle())
        _ = [[] for _ in range(20000)]  # would start a collection

    def look(trainer):
        alive[trainer.iter] = sum(ref() is not None for ref in made.values())

    hooks = [CallbackHook(before_step=make), GarbageCollection(3), CallbackHook(after_step=look)]
    trainer = make_trainer(hooks)
    trainer.train(0, 7)
    assert alive == {0: 1, 1: 2, 2: 0, 3: 1, 4: 2, 5: 0, 6: 1}
    assert [iteration for _, iteration in trainer.storage.history("gc_time").values()] == [2, 5]


@pytest.mark.parametrize("fails", [False, True])
def test_afterwards_all_is_as_before(make_trainer, fails):
    frozen = gc.get_freeze_count()

    def inside(trainer):
        assert not gc.isenabled()
        if fails:
            raise KeyError

    trainer = make_trainer([GarbageCollection(2), CallbackHook(after_backward=inside)])
    if fails:
        with pytest.raises(KeyError):
            trainer.train(0, 2)
    else:
        trainer.train(0, 2)
    assert gc.isenabled()
    assert gc.get_freeze_count() <= frozen


def test_who_switched_it_off_finds_it_off(make_trainer):
    gc.disable()
    try:
        make_trainer([GarbageCollection(1)]).train(0, 1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def _say(queue):
    queue.put(gc.isenabled())


def test_a_forked_worker_collects_by_itself(make_trainer):
    """It has no hook, and would keep every cycle that its transforms make."""
    context = multiprocessing.get_context("fork")
    queue, seen = context.SimpleQueue(), []

    def fork(trainer):
        worker = context.Process(target=_say, args=(queue,))
        worker.start()
        seen.append(queue.get())
        worker.join()

    make_trainer([GarbageCollection(5), CallbackHook(before_step=fork)]).train(0, 1)
    assert seen == [True]
