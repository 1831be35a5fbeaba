from hookline.engine.hooks import CallbackHook


def test_functions_get_the_trainer_at_their_moments(make_trainer):
    notes = []

    def at(moment):
        return lambda trainer: notes.append((moment, trainer.iter))

    trainer = make_trainer([
        CallbackHook(
            before_train=at("before_train"), before_step=at("before_step"), after_backward=at("after_backward"),
            after_step=at("after_step"), after_train=at("after_train"),
        ),
        CallbackHook(after_step=at("second")),
        CallbackHook(),
    ])  # fmt: skip
    trainer.train(0, 1)
    moments = ["before_train", "before_step", "after_backward", "after_step", "second"]
    assert notes == [*((moment, 0) for moment in moments), ("after_train", 1)]


def test_training_twice_calls_twice(make_trainer):
    count = []
    trainer = make_trainer([CallbackHook(after_train=count.append)])
    trainer.train(0, 1)
    trainer.train(1, 2)
    assert len(count) == 2


def test_missing_functions_do_nothing():
    hook = CallbackHook()
    hook.before_train(), hook.before_step(), hook.after_backward(), hook.after_step(), hook.after_train()
