"""What a mistake in schedules, optimizer and clipping is answered with, through the real command line."""

import pytest

from hookline.cli.train import main
from small_runs import RECIPE, SMALL

STEPS = "lr_multiplier.scheduler={_target_: hookline.engine.schedule.MultiStepParamScheduler, num_updates: 90, %s}"
CONSTANT = "{_target_: hookline.engine.schedule.ConstantParamScheduler, value: 1.0}"
GROUPS = (
    "optimizer.params={_target_: hookline.engine.get_param_groups_by_name, base_lr: 0.1, weight_decay: 0.1, rules: %s}"
)
OTHER = "optimizer={params: {_target_: hookline.engine.get_default_optimizer_params}, _target_: torch.optim.%s}"

CASES = [
    ([STEPS % "values: [1, 0.1, 0.01], milestones: [80, 60]"],
     "lr_multiplier.scheduler.milestones=[80, 60]: expected rising ones, such as [60, 80]"),
    ([STEPS % "values: [1, 0.1], milestones: [100]"],
     "lr_multiplier.scheduler.milestones=[100]: expected them before the end, num_updates=90"),
    ([STEPS % "values: [1, 0.1], milestones: [60, 70]"],
     "lr_multiplier.scheduler.milestones=[60, 70]: expected 1 of them, one less than values"),
    ([STEPS % "values: [1, -0.1], milestones: [60]"],
     "lr_multiplier.scheduler.values[1]=-0.1: expected a finite number of at least 0"),
    ([STEPS % "values: [1, 0.1], milestone: [60]"], "has no argument 'milestone'; did you mean 'milestones'"),
    (["lr_multiplier.warmup_length=3000"], "lr_multiplier.warmup_length=3000: the warm-up must end within the run"),
    (["lr_multiplier.warmup_length=5", "+lr_multiplier.num_updates=${train.max_iter}"],
     "lr_multiplier.warmup_length=5: the warm-up must end within the run; expected at most num_updates=4"),
    (["lr_multiplier.warmup_factor=-1"], "lr_multiplier.warmup_factor=-1: expected a finite number of at least 0"),
    (["+lr_multiplier.warmup_method=liner"], "lr_multiplier.warmup_method='liner': expected linear"),
    (["+lr_multiplier.warmup_lenght=0.1"], "has no argument 'warmup_lenght'; did you mean 'warmup_length'"),
    (["lr_multiplier.scheduler.end_value=-0.5"], "lr_multiplier: the schedule of lr gives -0.28"),
    (["lr_multiplier.scheduler.end_value=nan"], "lr_multiplier: the schedule of lr gives nan at iteration 0 of 4"),
    (["+momentum_multiplier={_target_: hookline.engine.schedule.CyclicParamScheduler, target_ratio: [0.85]}"],
     "momentum_multiplier.target_ratio=[0.85]: expected two factors"),
    ([f"+momentum_multiplier={CONSTANT}", OTHER % "Adagrad, lr: 0.1"],
     "momentum_multiplier: Adagrad has no momentum or betas to multiply; it takes lr, lr_decay"),
    ([f"+momentum_multiplier={CONSTANT}", OTHER % "SGD, lr: 0.1"],
     "momentum_multiplier multiplies optimizer.momentum=0, which stays 0"),
    (["+weight_decay_multiplier=5"], "weight_decay_multiplier=5: expected a schedule"),
    (["optimizer.lr=-0.1"], "optimizer.lr=-0.1: expected a finite number of at least 0"),
    (["optimizer.lr=nan"], "optimizer.lr=nan: expected a finite number of at least 0"),
    (["optimizer.weight_decay=nan"], "optimizer.weight_decay=nan: expected a finite number of at least 0"),
    ([OTHER % "SGD, lr: 0.1, momentun: 0.9"],
     "SGD has no argument 'momentun'; did you mean 'momentum'?"),
    (["+optimizer.nesterov=true"], "AdamW has no argument 'nesterov'; it takes: amsgrad, betas"),
    (["optimizer._target_=torch.optim.SDG"], "torch.optim has no 'SDG'; did you mean 'SGD'?"),
    ([GROUPS % "{backbond: {lr_factor: 0.1}}"],
     "optimizer.params.rules['backbond']={'lr_factor': 0.1}: no parameter's name contains 'backbond'; nearest: backb"),
    ([GROUPS % "{backbone: {lr_factor: -0.1}}"], "optimizer.params.rules['backbone'].lr_factor=-0.1: expected a"),
    ([GROUPS % "{backbone: {lr_factr: 0.1}}"], "optimizer.params.rules['backbone'].lr_factr=0.1: did you mean lr_f"),
    ([GROUPS % "{backbone: {nesterov: true}}"], "norm.weight ... has nesterov=True, which is no setting of it; there"),
    ([GROUPS % "{}, norm_decay_mult: nan"], "optimizer.params.norm_decay_mult=nan: expected a finite number"),
    ([GROUPS % "{}, ruls: {}"], "get_param_groups_by_name has no argument 'ruls'; did you mean 'rules'?"),
    (["optimizer.params.weight_decay_norm=-1"], "optimizer.params: the group of backbone.fpn_lateral2.norm.weight, "),
    (["+optimizer.params.bias_lr_factor=-1"], "optimizer.params.bias_lr_factor=-1: expected a finite number"),
    (["train.grad_clip=-1"], "train.grad_clip=-1: max_norm must be a positive number, got -1"),
    (["train.grad_clip={max_nrm: 1}"], "train.grad_clip.max_nrm; did you mean train.grad_clip.max_norm?"),
]  # fmt: skip


@pytest.mark.parametrize(("overrides", "words"), CASES)
def test_a_mistake_ends_with_2_names_its_key_and_trains_nothing(
    datasets, monkeypatch, tmp_path, capfd, overrides, words
):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    argv = ["--config-file", RECIPE, "--work-dir", str(tmp_path / "run"), "--no-validate"]
    assert main([*argv, *SMALL, "train.max_iter=4", *overrides]) == 2
    err = capfd.readouterr().err
    assert err.count("error: ") == 1
    assert words in err[err.index("error: ") :]
    assert "Traceback" not in err
    assert not list((tmp_path / "run").glob("*.pth"))
