"""The page of all settings: it is complete, and what it puts in place of mmcv's and mmengine's settings works."""

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from hookline import engine
from hookline.cli.settings import DEFAULTS, load_settings
from hookline.cli.train import parse_arguments
from hookline.config import LazyCall, instantiate
from hookline.engine import hooks, schedule

PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
NODES = ("train", "optimizer", "model", "dataloader")


def rows(heading):
    """Give the cells of the tables behind a heading of the page, up to the next one of the same level."""
    text = PAGE.read_text().split(f"\n{heading}\n")[1]
    text = re.split(rf"\n{'#' * heading.count('#')} ", text)[0]
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_setting_of_train_is_on_the_page():
    table = "\n".join(" | ".join(row) for row in rows("## All of `train`"))
    by_key = {key: line for line in table.splitlines() for key in re.findall(r"`train\.(\w+)`", line)}
    assert set(DEFAULTS) == set(by_key)
    missing = [
        f"train.{key}.{inner}"
        for key, value in DEFAULTS.items()
        for inner in (value if isinstance(value, dict) else ())
        if f"`{inner}`" not in by_key[key]
    ]
    assert not missing
    outdated = [
        f"train.{key}.{inner}"
        for key, value in DEFAULTS.items()
        for inner in re.findall(r"`(\w+)`", by_key[key].split(" | ")[1])
        if isinstance(value, dict) and inner not in value
    ]
    assert not outdated


def spans(column):
    """Give the code in a column of the migration table."""
    found = [row[column] for row in rows("## From mmcv and mmengine settings to ours") if row[0] != "there"]
    return list(dict.fromkeys(code for cell in found for code in re.findall(r"`([^`]+)`", cell)))


@pytest.fixture(scope="module")
def names():
    model = torch.nn.ModuleDict({"backbone": torch.nn.Linear(2, 2), "norm": torch.nn.LayerNorm(2)})
    known = {name: getattr(schedule, name) for name in schedule.__all__}
    known |= {name: getattr(engine, name) for name in engine.__all__}
    return known | {
        "L": LazyCall,
        "torch": torch,
        "hooks": hooks,
        "model": model,
        "lr": 0.01,
        "schedule": lambda p: 1.0,
    }


def is_override(code):
    return bool(re.match(rf"[+]?({'|'.join(NODES)})\.[\w.]+=", code))


def test_the_table_is_read_at_all():
    assert len(spans(1)) > 60
    assert sum(map(is_override, spans(1))) > 30


@pytest.mark.parametrize("code", [code for code in spans(1) if is_override(code)])
def test_an_override_that_replaces_a_setting_is_accepted(code):
    together = (
        ["train.max_epochs=150", "train.max_iter=null"],
        ["train.auto_scale_lr=true", "train.reference_batch_size=16"],
    )
    overrides = next((pair for pair in together if code in pair), [code])
    cfg = load_settings(parse_arguments(["--config-file", "balloon/mask_rcnn_tiny.py", *overrides]))
    key, value = code.lstrip("+").split("=", 1)
    if value.isalnum():
        assert str(OmegaConf.select(cfg, key)).lower() in (value.lower(), "none" if value == "null" else value.lower())


@pytest.mark.parametrize("code", [code for code in spans(1) if code.endswith(")") and not is_override(code)])
def test_a_call_that_replaces_a_setting_can_be_made(names, code):
    made = eval(code.split(" = ", 1)[-1], names)
    if OmegaConf.is_config(made):
        made = instantiate(made, params=names["model"].parameters()) if "optim" in code else instantiate(made)
    if callable(made) and not isinstance(made, torch.optim.Optimizer):
        assert 0 <= made(0.0) <= 10


@pytest.mark.parametrize("code", [c for c in spans(1) if re.fullmatch(r"[\w.]+", c)])
def test_a_name_on_the_right_is_ours(names, code):
    if code.startswith("train."):
        node = OmegaConf.create({"train": DEFAULTS})
        parent, _, last = code.rpartition(".")
        assert last in OmegaConf.select(node, parent)
    elif code not in ("optimizer.lr", "max_lr", "lr_factor_func"):
        assert hasattr(hooks, code.removeprefix("hooks.")) or code in names
