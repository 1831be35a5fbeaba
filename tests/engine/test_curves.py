import math
import warnings

import pytest
import torch
from torch.optim import lr_scheduler as theirs

from hookline.engine.hooks import CallbackHook, LRScheduler
from hookline.engine.schedule import (
    ConstantParamScheduler,
    CosineParamScheduler,
    CosineRestartParamScheduler,
    CyclicParamScheduler,
    ExponentialParamScheduler,
    FixedStepParamScheduler,
    FlatCosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    OneCycleParamScheduler,
    PerEpochParamScheduler,
    PolynomialParamScheduler,
    StepWithFixedGammaParamScheduler,
    WarmupParamScheduler,
    check_schedule,
    value_at,
)

N = 60
WARM = 12


def torch_values(make, steps, key="lr"):
    """Give what each step uses with one of torch's schedulers; the learning rate is 1, momentum 0.9."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = make(optimizer)
        values = []
        for _ in range(steps):
            values.append(optimizer.param_groups[0][key])
            optimizer.step()
            scheduler.step()
    return values


def values(schedule, steps=N):
    return [value_at(schedule, k, steps) for k in range(steps)]


def close(ours, expected):
    assert ours == pytest.approx(expected, abs=1e-12, rel=0)


def sgdr(k, first=8):
    """Give the share of its cycle that step k has reached, when each cycle is twice as long as the one before."""
    cycle = int(math.log2(k / first + 1))
    return (k - first * (2**cycle - 1)) / (first * 2**cycle)


# name: (ours for n steps, torch's for n steps, the formula of step k of n)
CASES = {
    "constant": (
        lambda n: ConstantParamScheduler(1.0),
        lambda n: lambda o: theirs.ConstantLR(o, 1.0, n),
        lambda k, n: 1.0,
    ),
    "linear": (
        lambda n: LinearParamScheduler(1.0, 0.1),
        lambda n: lambda o: theirs.LinearLR(o, 1.0, 0.1, n),
        lambda k, n: 1 - 0.9 * k / n,
    ),
    "exponential": (
        lambda n: ExponentialParamScheduler(1.0, 0.95**n),
        lambda n: lambda o: theirs.ExponentialLR(o, 0.95),
        lambda k, n: 0.95**k,
    ),
    "multi-step": (
        lambda n: MultiStepParamScheduler([1.0, 0.1, 0.01], n, [20, 40]),
        lambda n: lambda o: theirs.MultiStepLR(o, [20, 40]),
        lambda k, n: 0.1 ** ((k >= 20) + (k >= 40)),
    ),
    "step": (
        lambda n: StepWithFixedGammaParamScheduler(1.0, 3, 0.5, n),
        lambda n: lambda o: theirs.StepLR(o, n // 4, 0.5),
        lambda k, n: 0.5 ** (k // (n // 4)),
    ),
    "step of fixed length": (
        lambda n: FixedStepParamScheduler(7, n, 0.5),
        lambda n: lambda o: theirs.StepLR(o, 7, 0.5),
        lambda k, n: 0.5 ** (k // 7),
    ),
    "polynomial": (
        lambda n: PolynomialParamScheduler(0.9),
        lambda n: lambda o: theirs.PolynomialLR(o, n, 0.9),
        lambda k, n: (1 - k / n) ** 0.9,
    ),
    "cosine": (
        lambda n: CosineParamScheduler(1.0, 0.05),
        lambda n: lambda o: theirs.CosineAnnealingLR(o, n, 0.05),
        lambda k, n: 0.05 + 0.475 * (1 + math.cos(math.pi * k / n)),
    ),
    "cosine with restarts": (
        lambda n: CosineRestartParamScheduler([8, 16, 32, 64], n, end_value=0.02),
        lambda n: lambda o: theirs.CosineAnnealingWarmRestarts(o, 8, 2, 0.02),
        lambda k, n: 0.02 + 0.49 * (1 + math.cos(math.pi * sgdr(k))),
    ),
    "flat, then cosine": (
        lambda n: FlatCosineParamScheduler(0.75, 1.0, 0.1),
        lambda n: (
            lambda o: theirs.SequentialLR(
                o,
                [theirs.ConstantLR(o, 1.0, n), theirs.CosineAnnealingLR(o, n // 4, 0.1)],
                [n * 3 // 4],
            )
        ),
        lambda k, n: 1.0 if k < 45 else 0.1 + 0.45 * (1 + math.cos(math.pi * (k - 45) / 15)),
    ),
    "one-cycle": (
        lambda n: OneCycleParamScheduler(1 / 25, 1.0, 1 / 25e4, num_updates=n),
        lambda n: lambda o: theirs.OneCycleLR(o, 1.0, n),
        None,
    ),
    "one-cycle, three phases": (
        lambda n: OneCycleParamScheduler(1 / 25, 1.0, 1 / 25e4, 0.3, "linear", True, num_updates=n),
        lambda n: lambda o: theirs.OneCycleLR(o, 1.0, n, anneal_strategy="linear", three_phase=True),
        None,
    ),
    "cyclic": (
        lambda n: CyclicParamScheduler((6, 1), 3, 0.4, "linear"),
        lambda n: lambda o: theirs.CyclicLR(o, 1.0, 6.0, n // 3 * 4 // 10, n // 3 - n // 3 * 4 // 10),
        lambda k, n: 1 + 5 * min(k % (n // 3) / (n // 3 * 0.4), (1 - k % (n // 3) / (n // 3)) / 0.6),
    ),
}  # fmt: skip


# torch's own misbehave behind a warm-up: one starts with the rate it finds, the other is itself such a sequence
NOT_IN_SEQUENCE = ("one-cycle", "one-cycle, three phases", "flat, then cosine")


@pytest.mark.parametrize("name", CASES)
def test_equals_torch_and_the_formula(name):
    make, make_theirs, formula = CASES[name]
    ours = values(make(N))
    close(ours, torch_values(make_theirs(N), N))
    if formula:
        close(ours, [formula(k, N) for k in range(N)])
    end = make(N)
    assert value_at(end, N + 1000, N) == ours[-1]  # past the end the last value holds


@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize("name", [name for name in CASES if name not in NOT_IN_SEQUENCE])
def test_behind_a_warmup_equals_torch(name, method):
    make, make_theirs, _ = CASES[name]
    first = values(make(N))[0]

    def sequence(optimizer):
        if method == "linear":
            warmup = theirs.LinearLR(optimizer, 0.1, first, WARM)
        else:
            warmup = theirs.ConstantLR(optimizer, 0.1, WARM)
        return theirs.SequentialLR(optimizer, [warmup, make_theirs(N)(optimizer)], [WARM])

    ours = WarmupParamScheduler(make(N), 0.1, WARM, method, rescale_interval=True, num_updates=N + WARM)
    close(values(ours, N + WARM), torch_values(sequence, N + WARM))


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_every_warmup_by_its_formula(name, rescale):
    schedule = CASES[name][0](N)
    first = schedule(0.0)
    end = schedule(0.0 if rescale else WARM / N)
    for method, formula in {
        "linear": lambda k: 0.1 * first + (end - 0.1 * first) * k / WARM,
        "constant": lambda k: 0.1 * first,
        "exponential": lambda k: 0.1 * first * (end / (0.1 * first)) ** (k / WARM),
    }.items():
        warm = values(WarmupParamScheduler(schedule, 0.1, WARM, method, rescale, num_updates=N))
        close(warm[:WARM], [formula(k) for k in range(WARM)])
        after = [schedule((k - WARM) / (N - WARM)) if rescale else schedule(k / N) for k in range(WARM, N)]
        close(warm[WARM:], after)


def test_momentum_of_one_cycle_and_cyclic():
    ratio = [0.95 / 0.9, 0.85 / 0.9]
    ours = OneCycleParamScheduler(ratio[0], ratio[1], ratio[0], num_updates=N)
    close([0.9 * v for v in values(ours)], torch_values(lambda o: theirs.OneCycleLR(o, 1.0, N), N, "momentum"))
    ours = CyclicParamScheduler((0.8 / 0.9, 1), 3, 0.4, "linear")
    cyclic = lambda o: theirs.CyclicLR(o, 1.0, 2.0, 8, 12, base_momentum=0.8, max_momentum=0.9)  # noqa: E731
    close([0.9 * v for v in values(ours)], torch_values(cyclic, N, "momentum"))


def test_mmcvs_cyclic():
    """Reference: mmcv's phases, whose top shrinks by gamma with every cycle."""

    def mmcv(k, target=(10, 1e-4), times=2, up=0.4, gamma=0.5):
        length = N // times
        cycle, at, rise = k // length, k % length, int(up * (N // times))
        top = 1 - gamma**cycle + target[0] * gamma**cycle
        start, end, share = (1, top, at / rise) if at < rise else (top, target[1], (at - rise) / (length - rise))
        return end + 0.5 * (start - end) * (math.cos(math.pi * share) + 1)

    close(values(CyclicParamScheduler((10, 1e-4), 2, 0.4, gamma=0.5)), [mmcv(k) for k in range(N)])


def test_end_value_flat_cosine_restart_weights_and_epochs():
    close(values(PolynomialParamScheduler(2, 0.2)), [0.2 + 0.8 * (1 - k / N) ** 2 for k in range(N)])
    floor = FixedStepParamScheduler(10, N, 0.1, min_value=0.05)  # mmcv's min_lr
    close(values(floor), [max(0.1 ** (k // 10), 0.05) for k in range(N)])
    restarts = CosineRestartParamScheduler([30, 30], restart_weights=[1, 0.5])
    close(values(restarts), [(1 + math.cos(math.pi * (k % 30) / 30)) / (2 if k < 30 else 4) for k in range(N)])
    by_epoch = PerEpochParamScheduler(CosineParamScheduler(1.0, 0.0), 10)
    close(values(by_epoch), [0.5 + 0.5 * math.cos(math.pi * (k // 6) / 10) for k in range(N)])
    by_epoch = values(PerEpochParamScheduler(lambda where: where, 7), 7 * 123)  # the borders, in floating point
    close(by_epoch, [k // 123 / 7 for k in range(7 * 123)])


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_a_run_gives_every_group_its_value_in_every_step(make_trainer, two_losses, name, warm):
    """All three settings of AdamW at once, two groups with other first values, some steps past the end."""
    schedule = CASES[name][0](N)
    if warm:
        schedule = WarmupParamScheduler(schedule, 0.1, 3, num_updates=15)  # in epochs of 4 steps
    model, seen = two_losses(), []
    first = [
        {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.02},
        {"lr": 1e-4, "betas": (0.8, 0.99), "weight_decay": 0.01},
    ]
    groups = [
        {"params": [parameter], **settings} for parameter, settings in zip(model.parameters(), first, strict=True)
    ]

    def note(trainer):
        seen.append([(g["lr"], g["betas"][0], g["weight_decay"]) for g in trainer.optimizer.param_groups])

    hooks = [LRScheduler(scheduler=lambda p: schedule(p) / 10, key=k, max_iter=N) for k in ("lr", "momentum")]
    hooks.append(LRScheduler(scheduler=schedule, key="weight_decay", max_iter=N))
    trainer = make_trainer([*hooks, CallbackHook(after_backward=note)], model=model)
    trainer.optimizer = torch.optim.AdamW(groups)
    trainer.train(0, N + 5)
    for k, groups in enumerate(seen):
        factor = schedule(min(k, N - 1) / N)
        for values, own in zip(groups, first, strict=True):
            expected = (own["lr"] * factor / 10, own["betas"][0] * factor / 10, own["weight_decay"] * factor)
            assert values == pytest.approx(expected, abs=1e-12, rel=0)
    assert len(seen) == N + 5


def test_milestones_are_exact_in_very_long_runs():
    length = 5_000_000  # fvcore's own is five steps early here
    schedule = MultiStepParamScheduler([1.0, 0.1, 0.01], length, [3_000_000, 4_000_001])
    steps = (2_999_999, 3_000_000, 4_000_000, 4_000_001, 4_999_999)
    assert [value_at(schedule, k, length) for k in steps] == [1.0, 0.1, 0.1, 0.01, 0.01]
    for total in (150, 1350, 90_000):
        every = MultiStepParamScheduler(list(range(149, -1, -1)), 150, list(range(1, 150)))
        assert [value_at(every, k, total) for k in range(total)] == [149 - k * 150 // total for k in range(total)]


@pytest.mark.parametrize("name", CASES)
def test_by_epoch_each_step_has_the_value_of_its_epochs_begin(name):
    schedule, epochs = CASES[name][0](N), 12
    by_epoch = PerEpochParamScheduler(schedule, epochs)
    expected = [value_at(schedule, k // (N // epochs) * (N // epochs), N) for k in range(N)]
    close(values(by_epoch), expected)


def test_a_warmup_keeps_its_length_when_the_run_is_longer():
    short, long = (WarmupParamScheduler(lambda where: 1.0, 0.0, 10, num_updates=n) for n in (20, 1000))
    close([value_at(short, k, 20) for k in range(15)], [value_at(long, k, 1000) for k in range(15)])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: MultiStepParamScheduler([1, 0.1, 0.01], 90, [80, 60]), r"milestones=\[80, 60\].*\[60, 80\]"),
        (lambda: MultiStepParamScheduler([1, 0.1], 90, [100]), r"milestones=\[100\].*num_updates=90"),
        (lambda: MultiStepParamScheduler([1, 0.1], 90, [0]), r"milestones=\[0\]"),
        (lambda: MultiStepParamScheduler([1, 0.1], 90, [60, 70]), "expected 1 of them, one less than values"),
        (lambda: MultiStepParamScheduler([1, 0.1], None, [60]), "expected 2 of them, as many as values"),
        (lambda: FixedStepParamScheduler(90, 90), "step_size=90.*below num_updates=90"),
        (lambda: FixedStepParamScheduler(9, 90, -1), "gamma=-1"),
        (lambda: MultiStepParamScheduler([1, -0.1], 90, [60]), r"values\[1\]=-0.1"),
        (lambda: MultiStepParamScheduler([math.nan, 0.1], 90, [60]), r"values\[0\]=nan"),
        (lambda: PolynomialParamScheduler(0), "power=0"),
        (lambda: PolynomialParamScheduler(1, -1), "end_value=-1"),
        (lambda: CosineRestartParamScheduler([]), r"periods=\[\]"),
        (lambda: CosineRestartParamScheduler([10], 20), "num_updates=20.*10"),
        (lambda: CosineRestartParamScheduler([10], restart_weights=[1, 2]), "restart_weights"),
        (lambda: FlatCosineParamScheduler(1.0), "flat=1.0"),
        (lambda: OneCycleParamScheduler(pct_start=0.6, three_phase=True), "below 0.5"),
        (lambda: OneCycleParamScheduler(pct_start=0.01, num_updates=50), "longer than a step"),
        (lambda: OneCycleParamScheduler(anneal_strategy="cosine"), "anneal_strategy='cosine': expected 'cos'"),
        (lambda: CyclicParamScheduler((1,)), "target_ratio"),
        (lambda: CyclicParamScheduler(cyclic_times=0), "cyclic_times=0"),
        (lambda: CyclicParamScheduler(step_ratio_up=1), "step_ratio_up=1"),
        (lambda: CyclicParamScheduler(gamma=0), "gamma=0"),
        (lambda: PerEpochParamScheduler(lambda where: 1.0, 0), "num_epochs=0"),
        (lambda: WarmupParamScheduler(lambda w: 1.0, 0.1, 500, num_updates=400), "warmup_length=500.*num_updates=400"),
        (lambda: WarmupParamScheduler(lambda w: 1.0, -0.1, 0.1), "warmup_factor=-0.1"),
        (lambda: WarmupParamScheduler(lambda w: 1.0, 0.0, 0.1, "exponential"), "above 0"),
        (lambda: check_schedule(lambda w: 0.5 - w, 100, "lr"), "schedule of lr gives -.* at iteration 51 of 100"),
        (lambda: check_schedule(lambda w: math.nan, 10, "momentum"), "schedule of momentum gives nan"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()
