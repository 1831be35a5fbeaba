import pytest
import torch

from hookline.engine.hooks import CallbackHook, LRScheduler
from hookline.engine.schedule import ConstantParamScheduler, CosineParamScheduler, MultiStepParamScheduler


def used(make_trainer, hook, start=0, end=10, key="lr", **settings):
    """Give the setting that each step used."""
    values = []

    def note(trainer):
        group = trainer.optimizer.param_groups[0]
        values.append(group["betas"][0] if key == "momentum" and "betas" in group else group[key])

    trainer = make_trainer([hook, CallbackHook(after_backward=note)], **settings)
    trainer.train(start, end)
    return trainer, values


def test_each_step_uses_the_value_of_its_progress(make_trainer):
    schedule = CosineParamScheduler(1.0, 0.0)
    trainer, rates = used(make_trainer, LRScheduler(scheduler=schedule))
    assert rates == [0.1 * schedule(i / 10) for i in range(10)]
    assert trainer.storage.history("lr").values() == list(zip(rates, range(10), strict=True))
    assert trainer.storage.smoothing_hints()["lr"] is False


def test_past_the_end_the_last_value_is_held(make_trainer):
    schedule = MultiStepParamScheduler([1.0, 0.5], num_updates=5, milestones=[3])
    _, rates = used(make_trainer, LRScheduler(scheduler=schedule, max_iter=5), end=8)
    assert rates == [0.1] * 3 + [0.05] * 5
    used(make_trainer, LRScheduler(scheduler=ConstantParamScheduler(1.0)), end=3)  # fvcore's raise at 1.0


def test_resume_needs_no_state(make_trainer):
    def hook():
        return LRScheduler(scheduler=CosineParamScheduler(1.0, 0.0), max_iter=10)

    _, whole = used(make_trainer, hook())
    first, _ = used(make_trainer, hook(), end=4)
    second = make_trainer([hook()])
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    rates = []
    second.register_hooks([CallbackHook(after_backward=lambda t: rates.append(t.optimizer.param_groups[0]["lr"]))])
    second.train(4, 10)
    assert rates == whole[4:]
    assert hook().state_dict() == {}


def test_every_group_keeps_its_ratio(make_trainer, two_losses):
    model = two_losses()
    optimizer = torch.optim.SGD(
        [{"params": [model.linear.weight], "lr": 1.0}, {"params": [model.linear.bias], "lr": 2.0}]
    )
    trainer = make_trainer([LRScheduler(optimizer, lambda where: 1 - where)], model=model)
    trainer.optimizer = optimizer
    trainer.train(0, 4)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [1.0, 2.0]


def test_written_only_when_it_changes(make_trainer):
    trainer = make_trainer([LRScheduler(scheduler=MultiStepParamScheduler([1.0, 0.1], num_updates=10, milestones=[5]))])
    writes = []

    class Group(dict):
        def __setitem__(self, key, value):
            writes.append((key, value))
            super().__setitem__(key, value)

    trainer.optimizer.param_groups[0] = Group(trainer.optimizer.param_groups[0])
    trainer.train(0, 10)
    assert [value for key, value in writes if key == "lr"] == pytest.approx([0.1, 0.01])


def test_a_group_added_later_follows(make_trainer, two_losses):
    def add(trainer):
        if trainer.iter == 2:
            trainer.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 5.0})

    trainer = make_trainer([CallbackHook(before_step=add), LRScheduler(scheduler=lambda where: 0.5)])
    trainer.train(0, 4)
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [0.05, 2.5]


@pytest.mark.parametrize(("key", "first"), [("momentum", 0.9), ("weight_decay", 0.01)])
def test_other_settings(make_trainer, two_losses, key, first):
    model = two_losses()
    hook = LRScheduler(scheduler=lambda where: 1 - where, key=key)
    trainer = make_trainer([hook], model=model)
    trainer.optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.99), weight_decay=0.01)
    trainer.train(0, 4)
    values = [value for value, _ in trainer.storage.history(key).values()]
    assert values == pytest.approx([first * f for f in (1, 0.75, 0.5, 0.25)])
    assert hook.state_key == f"LRScheduler.{key}"
    if key == "momentum":
        assert trainer.optimizer.param_groups[0]["betas"] == (pytest.approx(0.225), 0.99)


def test_rate_on_the_device(make_trainer, two_losses):
    model = two_losses()
    trainer = make_trainer([LRScheduler(scheduler=lambda where: 1 - where)], model=model)
    rate = torch.tensor(0.1)
    trainer.optimizer = torch.optim.SGD(model.parameters(), lr=rate, foreach=False)
    trainer.train(0, 4)
    assert trainer.optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.025)


class TestTorchSchedulers:
    def test_stepped_once_after_each_iteration(self, make_trainer, two_losses):
        model = two_losses()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        hook = LRScheduler(optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.1))
        trainer = make_trainer([hook], model=model)
        trainer.optimizer = optimizer
        trainer.train(0, 7)
        rates = [value for value, _ in trainer.storage.history("lr").values()]
        assert rates == pytest.approx([0.1] * 3 + [0.01] * 3 + [0.001])

    def test_its_state_is_saved(self, two_losses):
        optimizer = torch.optim.SGD(two_losses().parameters(), lr=0.1)
        first = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        optimizer.step()
        first.step()
        second = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        LRScheduler(optimizer, second).load_state_dict(LRScheduler(optimizer, first).state_dict())
        assert second.last_epoch == 1

    def test_drives_only_the_rate(self, two_losses):
        optimizer = torch.optim.SGD(two_losses().parameters(), lr=0.1)
        with pytest.raises(ValueError, match="StepLR"):
            LRScheduler(optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3), key="momentum")


def test_the_group_that_is_shown(make_trainer, two_losses):
    model = two_losses()
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(5)]

    def shown(groups):
        trainer = make_trainer([LRScheduler(scheduler=lambda where: 1.0)], model=model)
        trainer.optimizer = torch.optim.SGD(groups, lr=9.0)
        trainer.train(0, 1)
        return trainer.storage.latest()["lr"][0]

    assert shown([{"params": params[:1], "lr": 1.0}, {"params": params[1:], "lr": 2.0}]) == 2.0
    assert shown([{"params": [p], "lr": lr} for p, lr in zip(params, (1.0, 3.0, 2.0, 3.0, 1.5), strict=True)]) == 3.0


def test_scheduler_of_the_trainer(make_trainer):
    trainer = make_trainer([LRScheduler()])
    trainer.scheduler = lambda where: 0.5
    trainer.train(0, 1)
    assert trainer.storage.latest()["lr"] == (0.05, 0)


def test_refusals(make_trainer):
    with pytest.raises(ValueError, match="lr, momentum"):
        LRScheduler(scheduler=lambda where: 1.0, key="beta")
    with pytest.raises(TypeError, match="None"):
        make_trainer([LRScheduler()]).train(0, 1)
    trainer = make_trainer([LRScheduler(scheduler=lambda where: 1.0, key="momentum")])
    del trainer.optimizer.param_groups[0]["momentum"]
    with pytest.raises(ValueError, match="no 'momentum'"):
        trainer.train(0, 1)


@pytest.mark.parametrize("lr", [float("nan"), float("inf")])
def test_a_rate_that_is_no_number_ends_the_run_before_it_begins(make_trainer, lr):
    trainer = make_trainer([LRScheduler(scheduler=lambda where: 1.0)], lr=lr)
    with pytest.raises(ValueError, match=f"optimizer's lr is {lr}"):
        trainer.train(0, 1)
    with pytest.raises(ValueError, match="schedule of lr gives -1"):
        make_trainer([LRScheduler(scheduler=lambda where: -1.0 if where > 0.5 else 1.0)]).train(0, 10)
