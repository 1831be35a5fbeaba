import pytest
import torch
from torch import nn

from hookline.engine import Checkpointer
from hookline.engine.hooks import CallbackHook, EMAHook


class WithNorm(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.norm = nn.Linear(4, 2), nn.BatchNorm1d(2)
        self.scale = nn.Parameter(torch.ones(2, dtype=torch.bfloat16))

    def forward(self, batch):
        out = self.norm(self.linear(torch.stack([sample["x"] for sample in batch])))
        return {"loss": (out * self.scale).square().mean() + out[:, 0].mean()}


def weights(model):
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {name: w.detach().clone().float() for name, w in named.items() if w.is_floating_point()}


@pytest.mark.parametrize("warmup", [True, False])
def test_formula(make_trainer, warmup):
    model, course = WithNorm(), []
    hook = EMAHook(0.8, warmup=warmup)
    start = weights(model)
    trainer = make_trainer(
        [CallbackHook(after_step=lambda t: course.append(weights(model))), hook], model=model, lr=0.01
    )
    trainer.train(0, 40)
    expected = {name: w.double() for name, w in start.items()}
    for t, now in enumerate(course):
        d = min(0.8, (1 + t) / (10 + t)) if warmup else 0.8
        expected = {name: d * w + (1 - d) * now[name] for name, w in expected.items()}
    averages = hook.state_dict()["averages"]
    assert set(averages) == {*(f"{m}.{p}" for m in ("linear", "norm") for p in ("weight", "bias")), "scale",
                             "norm.running_mean", "norm.running_var"}  # fmt: skip
    for name, value in averages.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not torch.equal(averages["linear.weight"], model.linear.weight)


def test_half_life():
    assert EMAHook(half_life=100).decay ** 100 == pytest.approx(0.5)


def test_averaged_weights_come_and_go_bit_for_bit(make_trainer):
    model, hook = WithNorm(), EMAHook(0.9)
    trainer = make_trainer([hook], model=model)
    trainer.train(0, 5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    averages = hook.state_dict()["averages"]
    with hook.averaged():
        assert torch.equal(model.linear.weight, averages["linear.weight"])
        assert torch.equal(model.norm.running_var, averages["norm.running_var"])
        assert torch.equal(model.scale, averages["scale"].bfloat16())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_resumed_run_has_the_same_averages_bit_for_bit(make_trainer, tmp_path):
    def run(start, end, resume=False):
        hook = EMAHook(0.95)
        trainer = make_trainer([hook], model=WithNorm())
        checkpointer = Checkpointer(trainer.model, str(tmp_path), trainer=trainer)
        if resume:
            start = checkpointer.resume() + 1
        trainer.train(start, end)
        return hook, checkpointer

    whole, _ = run(0, 12)
    _, checkpointer = run(0, 5)
    checkpointer.save("model_0000004", iteration=4)
    resumed, _ = run(0, 12, resume=True)
    state, expected = resumed.state_dict(), whole.state_dict()
    assert state["updates"] == expected["updates"] == 12
    for name, value in expected["averages"].items():
        assert torch.equal(state["averages"][name], value)


def test_averages_of_another_model_are_refused(make_trainer):
    hook, other = EMAHook(0.9), EMAHook(0.9)
    make_trainer([hook], model=WithNorm()).train(0, 1)
    other.load_state_dict(hook.state_dict())
    with pytest.raises(ValueError, match="another model"):
        make_trainer([other]).train(0, 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "give one"),
        ({"decay": 0.9, "half_life": 3}, "give one"),
        ({"decay": 1.0}, "decay=1.0"),
        ({"decay": float("nan")}, "decay=nan"),
        ({"half_life": 0}, "half_life=0"),
    ],
)
def test_refusals(settings, words):
    with pytest.raises(ValueError, match=words):
        EMAHook(**settings)
