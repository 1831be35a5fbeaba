"""What all averages share: which tensors, where they live, how they come into the model and onto the disk."""

import logging

import pytest
import torch
from torch import nn

from hookline.engine import Checkpointer, SimpleTrainer
from hookline.engine.hooks import AverageHook, AveragesCheckpointer, CallbackHook, EMAHook


class Half(AverageHook):
    """Each step counts half."""

    def before_train(self):
        super().before_train()
        if not self.ready:
            self.begin()

    def share(self, updates):
        return 0.5


class Never(Half):
    """No step is due."""

    before_train = AverageHook.before_train

    def is_due(self, iteration):
        return False


class Odd(nn.Module):
    """A tied weight, a half-precision one, norm, a buffer that no checkpoint holds."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(4, 4)
        self.tied = nn.Linear(4, 4)
        self.tied.weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)
        self.scale = nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
        self.register_buffer("grid", torch.zeros(3), persistent=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))

    def forward(self, batch):
        self.count += 1
        x = torch.stack([sample["x"] for sample in batch])
        return {"loss": (self.norm(self.tied(self.first(x))) * self.scale).square().mean() + self.first(x).mean()}


def test_what_is_averaged(make_trainer):
    model, hook = Odd(), Half()
    make_trainer([hook], model=model).train(0, 3)
    averages = hook.state_dict()["averages"]
    assert set(averages) == {"first.weight", "first.bias", "tied.bias", "scale", "norm.weight", "norm.bias",
                             "norm.running_mean", "norm.running_var"}  # fmt: skip
    assert all(value.dtype == torch.float32 for value in averages.values())
    with hook.averaged():  # whole numbers are the model's own
        assert model.count == 3
        assert model.norm.num_batches_tracked == 3
        assert torch.equal(model.tied.weight, averages["first.weight"])


def test_a_parameter_that_is_replaced_is_followed(make_trainer):
    model, hook = Odd(), Half()

    def replace(trainer):
        if trainer.iter == 1:
            model.norm.weight = nn.Parameter(torch.full((4,), 8.0))

    make_trainer([CallbackHook(after_step=replace), hook], model=model, lr=0.0).train(0, 2)
    assert torch.equal(hook.state_dict()["averages"]["norm.weight"], torch.full((4,), 4.5))


def test_a_module_that_is_replaced_is_an_error(make_trainer):
    model, hook = Odd(), Half()
    make_trainer([hook], model=model).train(0, 1)
    model.norm = nn.BatchNorm1d(4)
    with pytest.raises(RuntimeError, match=r"norm\.weight belongs to a module that was replaced"), hook.averaged():
        pass
    del model.norm.weight  # a new one may not be forgotten either
    model.first.extra = nn.Parameter(torch.zeros(1))
    with pytest.raises(RuntimeError, match=r"norm\.weight|extra"):
        hook.state_dict()


def test_no_averages_yet():
    with pytest.raises(RuntimeError, match="no averages yet"), Half().averaged():
        pass
    assert Half().state_dict() == {}


@pytest.mark.parametrize("wrap", ["compile", "module.compile"])
def test_names_have_no_prefixes_of_wrappers(stream, wrap):
    model, plain = Odd(), Odd()
    if wrap == "compile":
        wrapped = torch.compile(model, backend="eager")
    else:
        model.compile(backend="eager")
        wrapped = model
    states = []
    for each in (wrapped, plain):
        hook = Half()
        trainer = SimpleTrainer(each, stream(), torch.optim.SGD(each.parameters(), lr=0.1))
        trainer.register_hooks([hook])
        trainer.train(0, 3)
        states.append(hook.state_dict()["averages"])
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name])


def test_one_update_for_an_optimizer_step_with_accumulation(make_trainer):
    hook = Half()
    make_trainer([hook], accumulate=3).train(0, 4)
    assert hook.updates == 4


def test_adopted_values_replace_averages(make_trainer):
    model, hook = Odd(), Half()
    make_trainer([hook], model=model).train(0, 2)
    raw = model.norm.running_mean.clone()
    weight = hook.state_dict()["averages"]["norm.weight"].clone()
    with hook.averaged():
        model.norm.running_mean.fill_(7.0)
        hook.adopt([model.norm.running_mean])
    assert torch.equal(model.norm.running_mean, raw)
    averages = hook.state_dict()["averages"]
    assert torch.equal(averages["norm.running_mean"], torch.full((4,), 7.0))
    assert torch.equal(averages["norm.weight"], weight)


def test_a_state_can_be_loaded_in_the_midst_of_training(make_trainer):
    model, hook = Odd(), Half()
    trainer = make_trainer([hook], model=model)
    trainer.train(0, 2)
    state = {"updates": 7, "averages": {name: value.double() + 1 for name, value in reversed(
        hook.state_dict()["averages"].items())}}  # fmt: skip
    hook.load_state_dict(state)
    with hook.averaged():
        assert torch.equal(model.first.bias, state["averages"]["first.bias"].float())
        assert torch.equal(model.norm.running_var, state["averages"]["norm.running_var"].float())


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_last_averages_are_saved_as_a_model(make_trainer, tmp_path, asynchronous):
    model, hook = Odd(), EMAHook(0.5)
    trainer = make_trainer([hook], model=model)
    checkpointer = Checkpointer(model, tmp_path, trainer=trainer, asynchronous=asynchronous)
    trainer.register_hooks([AveragesCheckpointer(checkpointer, hook, "model_final_ema", average="ema")])
    trainer.train(0, 3)
    content = torch.load(tmp_path / "model_final_ema.pth", weights_only=True)
    assert content["model"].keys() == model.state_dict().keys()
    for name, value in hook.state_dict()["averages"].items():
        assert torch.equal(content["model"][name], value.to(content["model"][name].dtype))
    assert (content["iteration"], content["meta"]["average"], content["meta"]["slim"]) == (2, "ema", True)
    assert content["model"]["count"] == 3
    assert not (tmp_path / "last_checkpoint").exists()  # one cannot resume from it
    assert checkpointer.resume() == -1


def test_nothing_is_saved_of_a_run_that_failed_or_never_averaged(make_trainer, tmp_path, caplog):
    def fail(trainer):
        raise ValueError("enough")

    hook = EMAHook(0.5)
    trainer = make_trainer([hook, CallbackHook(after_step=fail)])
    trainer.register_hooks([AveragesCheckpointer(Checkpointer(trainer.model, tmp_path), hook, "model_final_ema")])
    with pytest.raises(ValueError, match="enough"):
        trainer.train(0, 3)
    never = Never()
    trainer = make_trainer([never])
    trainer.register_hooks([AveragesCheckpointer(Checkpointer(trainer.model, tmp_path), never, "model_final_x")])
    with caplog.at_level(logging.WARNING):
        trainer.train(0, 3)
    assert "model_final_x is not saved" in caplog.text
    assert not list(tmp_path.iterdir())


def test_a_rule_is_needed(make_trainer):
    hook = AverageHook()
    with pytest.raises(NotImplementedError, match="must implement share"):
        make_trainer([hook]).train(0, 2)
