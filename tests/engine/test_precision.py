import pytest
import torch

from hookline.engine.precision import BF16, FP16, FP32, TF32, build_precision


class Step:
    """One training step of a linear model, with the dtype seen in the forward pass."""

    def __init__(self, precision, optimizer=torch.optim.SGD, fused=None):
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(4, 1)
        self.optimizer = optimizer(self.linear.parameters(), lr=0.1, fused=fused)
        self.precision = precision

    def __call__(self, factor=1.0):
        self.optimizer.zero_grad()
        with self.precision.forward():
            out = self.linear(torch.ones(2, 4))
            self.dtype = out.dtype
            loss = out.float().mean() * factor
        self.precision.backward(loss)
        self.precision.unscale(self.optimizer)
        self.gradient = self.linear.weight.grad.clone()
        self.precision.step(self.optimizer)
        return self.linear.weight.detach().clone()


@pytest.mark.parametrize(("name", "kind"), [("fp32", FP32), ("tf32", TF32), ("bf16", BF16), ("fp16", FP16)])
def test_names(name, kind):
    precision = build_precision(name, "cpu")
    assert type(precision) is kind
    assert precision.name == name


def test_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'bf16'"):
        build_precision("bf-16")
    with pytest.raises(ValueError, match="fp32, tf32, bf16, fp16"):
        build_precision("double")


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("fp32", torch.float32), ("tf32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)],
)
def test_forward_dtype_and_equal_updates(name, dtype):
    step, reference = Step(build_precision(name)), Step(FP32())
    assert torch.allclose(step(0.1), reference(0.1), atol=1e-2)
    assert step.dtype == dtype
    assert torch.allclose(step.gradient, reference.gradient, atol=1e-2)


def test_tf32_leaves_the_settings_as_they_were():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        with TF32().forward():
            assert torch.get_float32_matmul_precision() == "high"
            assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == before[0]
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("fused", [False, True])
def test_fp16_skips_a_step_that_overflows(optimizer, fused):
    step = Step(FP16("cpu"), optimizer, fused)
    before = step.linear.weight.detach().clone()
    scale = step.precision.metrics()["grad_scale"]
    step(factor=float("inf"))
    assert torch.equal(step.linear.weight.detach(), before)
    assert step.precision.metrics() == {"grad_scale": scale / 2, "skipped_steps": 1.0}
    step()
    assert not torch.equal(step.linear.weight.detach(), before)
    assert step.precision.skipped_steps == 1


def test_fp16_state_comes_back():
    first, second = Step(FP16("cpu")), Step(FP16("cpu"))
    first(factor=float("inf"))
    second.precision.load_state_dict(first.precision.state_dict())
    assert second.precision.metrics() == first.precision.metrics()
    second.precision.load_state_dict({})  # a run that was fp32 so far
    FP32().load_state_dict(first.precision.state_dict())


def test_own_scaler():
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    assert FP16("cpu", scaler).metrics()["grad_scale"] == 8.0
