"""`train.fsdp` from the command line: what is refused; Mask R-CNN trained, resumed and consolidated on two ranks."""

import json
from pathlib import Path

import pytest
import torch

from hookline.cli.consolidate import run as consolidate
from hookline.cli.train import main
from hookline.engine import launch
from hookline.engine.checkpoint_read import read_checkpoint
from small_runs import RECIPE, SMALL

PERIODS = ["train.checkpointer.period=2", "optimizer.lr=1e-3"]

pytestmark = pytest.mark.usefixtures("datasets", "one_thread")


def run(work_dir, *more):
    return main(["--config-file", RECIPE, "--work-dir", str(work_dir), *SMALL, *PERIODS, *map(str, more)])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["train.fsdp=true"], "train.fsdp=True: expected null or a dict"),
        (["+train.fsdp.unit=[A]"], "unknown setting train.fsdp.unit; did you mean train.fsdp.units?"),
        (["+train.fsdp.units=A"], "train.fsdp.units='A': expected null or a list"),
        (["+train.fsdp.reshard_after_forward=2"], "train.fsdp.reshard_after_forward=2: expected true or false"),
        (["train.fsdp={}", "train.precision=fp16"], "train.precision='fp16' and train.fsdp"),
        (["train.fsdp={}", "train.amp.enabled=true"], "train.amp.enabled=true and train.fsdp"),
        (["+train.fsdp.gather_dtype=bf16"], "set train.precision=bf16, or leave gather_dtype out"),
        (["+train.fsdp.gather_dtype=bf61"], "did you mean bf16?"),
        (["train.fsdp={}", "train.ddp.static_graph=true"], "train.ddp.static_graph=True and train.fsdp"),
        (["train.fsdp={}", "train.guards.anomaly=true"], "train.guards.anomaly=true and train.fsdp"),
        (["train.fsdp={}", "+train.ema.decay=0.9"], "train.ema and train.fsdp do not go together"),
        (["train.fsdp={}", "+train.ddp.bucket_cap_mb=50"], "train.ddp.bucket_cap_mb=50 and train.fsdp"),
        (
            ["train.fsdp={}", "train.checkpointer.asynchronous=true"],
            "train.checkpointer.asynchronous=true and train.fsdp",
        ),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path, capsys, settings, words):
    assert run(tmp_path / "run", "--num-procs", 2, *settings) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_in_a_single_process_it_is_the_plain_model(tmp_path):
    assert run(tmp_path, "train.fsdp={}", "train.max_iter=1", "--no-validate") == 0
    assert "the model stays whole" in (tmp_path / "log.txt").read_text("utf-8")
    assert (tmp_path / "model_final.pth").is_file()


@pytest.mark.slow
def test_a_unit_that_fits_nothing_ends_the_run_before_its_first_step(tmp_path, capfd):
    assert run(tmp_path, "--num-procs", 2, "+train.fsdp.units=[BasicBlok]", "--no-validate") == 2
    assert (
        "units: 'BasicBlok' fits no class and no module of the model; did you mean 'BasicBlock'?"
        in capfd.readouterr().err
    )
    assert "Training from" not in (tmp_path / "log.txt").read_text("utf-8")


FROZEN = [f"model.backbone.bottom_up.stages.{level}.norm=FrozenBN" for level in range(4)]


@pytest.mark.slow
def test_half_the_bytes_with_frozen_norms(tmp_path):
    frozen = [*FROZEN, "model.backbone.bottom_up.stem.norm=FrozenBN", "model.backbone.norm=''", "train.precision=bf16"]
    for name, more in (("ddp", []), ("half", ["+train.fsdp.gather_dtype=bf16", "+train.fsdp.reduce_every_batch=true"])):
        settings = ["--num-procs", 2, "train.max_iter=3", "train.accumulate=2", *frozen, *more]
        assert run(tmp_path / name, *settings) == 0
    assert losses(tmp_path / "half") == pytest.approx(losses(tmp_path / "ddp"), rel=2e-2)


def load_torchvision(file, folder):
    from hookline.cli.weights import from_torchvision
    from hookline.config import LazyConfig, instantiate
    from hookline.engine.checkpoint_sharded import ShardedCheckpointer
    from hookline.engine.fully_sharded import create_fully_sharded_model

    recipe = LazyConfig.load_rel("../../hookline/configs/common/models/mask_rcnn_fpn.py")
    model = create_fully_sharded_model(instantiate(recipe.model), "cpu")
    checkpointer = ShardedCheckpointer(model, converters=[from_torchvision])
    checkpointer.load(file, checkpointables=[])
    ShardedCheckpointer(model, folder).save("loaded", iteration=0)


@pytest.mark.slow
def test_torchvision_weights_are_converted_and_sharded(tmp_path):
    from torchvision.models import resnet50

    state = resnet50(weights=None).state_dict()
    torch.save(state, tmp_path / "torchvision.pth")
    launch(load_torchvision, 0, num_procs_per_machine=2, args=(tmp_path / "torchvision.pth", tmp_path / "run"))
    model = read_checkpoint(tmp_path / "run" / "loaded.dcp")["model"]
    for name, theirs in (
        ("stem.conv1", "conv1"),
        ("res2.0.conv1", "layer1.0.conv1"),
        ("res5.2.conv3", "layer4.2.conv3"),
    ):
        assert torch.equal(model[f"backbone.bottom_up.{name}.weight"], state[f"{theirs}.weight"])


def losses(work_dir):
    lines = map(json.loads, (work_dir / "metrics.json").read_text("utf-8").splitlines())
    return {line["iteration"]: line["total_loss"] for line in lines if "total_loss" in line}


def results(work_dir):
    return (work_dir / "inference" / "coco_instances_results.json").read_bytes()


@pytest.mark.slow
def test_mask_rcnn_trains_as_with_ddp_resumes_and_becomes_an_ordinary_checkpoint(tmp_path):
    whole, ddp, parted = tmp_path / "whole", tmp_path / "ddp", tmp_path / "parted"
    sharded = ["--num-procs", 2, "+train.fsdp.units=[BasicBlock, roi_heads.box_head]", "train.grad_clip=1.0"]
    assert run(whole, "train.max_iter=4", *sharded) == 0
    assert run(ddp, "train.max_iter=4", "--num-procs", 2, "train.grad_clip=1.0") == 0
    assert losses(whole) == pytest.approx(losses(ddp), rel=1e-5)
    files = [tmp_path / name for name in ("whole.pth", "parted.pth")]
    assert consolidate([str(whole / "model_final.dcp"), str(files[0])]) == 0
    trained, reference = (torch.load(file, weights_only=True) for file in (files[0], ddp / "model_final.pth"))
    assert trained.keys() == reference.keys()
    assert trained["model"].keys() == reference["model"].keys()
    for name, value in reference["model"].items():
        torch.testing.assert_close(
            trained["model"][name], value, rtol=1e-3, atol=5e-5
        )  # AdamW divides by small numbers
    # resumed: bit for bit
    assert run(parted, "train.max_iter=4", *sharded, "--no-validate", "--resume", whole / "model_0000001.dcp") == 0
    assert "Resumed at iteration 2 of 4" in (parted / "log.txt").read_text("utf-8")
    assert consolidate([str(parted), str(files[1])]) == 0
    resumed = torch.load(files[1], weights_only=True)
    assert resumed["iteration"] == 3
    for key in ("model", "optimizer"):
        torch.testing.assert_close(resumed[key], trained[key], rtol=0, atol=0)
    # evaluated in shards, whole in one process, and from the shards in one process: the same digits
    final = whole / "model_final.dcp"
    assert (
        run(tmp_path / "two", "--eval-only", "--num-procs", 2, "train.fsdp={}", f"train.init_checkpoint={final}") == 0
    )
    assert json.loads(results(tmp_path / "two"))
    for place, file in (("one", files[0]), ("direct", final)):
        assert run(tmp_path / place, "--eval-only", f"train.init_checkpoint={file}") == 0
        assert results(tmp_path / place) == results(tmp_path / "two")
    # and an ordinary run goes on from the file
    assert run(tmp_path / "on", "train.max_iter=5", "train.grad_clip=1.0", "--resume", files[0], "--no-validate") == 0
    assert list(losses(tmp_path / "on")) == [4]
    assert Path(tmp_path / "on" / "model_final.pth").is_file()


@pytest.mark.slow
def test_the_best_checkpoint_early_stopping_and_the_validation_loss(tmp_path):
    judged = ["train.eval_period=1", "train.checkpointer.save_best=auto", "+train.early_stopping.patience=2"]
    kept = ["+train.validation_loss.period=1", "train.checkpointer.period=1", "train.checkpointer.max_to_keep=2"]
    still = "optimizer.lr=0"  # each evaluation is as good as the first
    assert run(tmp_path, "--num-procs", 2, "train.max_iter=8", "train.fsdp={}", *judged, *kept, still) == 0
    log = (tmp_path / "log.txt").read_text("utf-8")
    assert "Training ends before iteration 3: bbox/AP did not improve by more than 0 in 2 evaluations" in log
    folders = {path.name for path in tmp_path.glob("*.dcp")}
    assert folders == {"model_0000001.dcp", "model_0000002.dcp", "model_best.dcp", "model_final.dcp"}
    assert read_checkpoint(tmp_path / "model_best.dcp")["iteration"] == 0
    lines = map(json.loads, (tmp_path / "metrics.json").read_text("utf-8").splitlines())
    validated = [line["validation/total_loss"] for line in lines if "validation/total_loss" in line]
    assert len(validated) >= 3
    assert all(loss > 0 for loss in validated)
