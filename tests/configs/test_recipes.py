"""Every packaged recipe loads, binds its arguments, and can be saved and loaded again."""

import pytest

from hookline.cli.recipes import find_recipe, packaged_recipes
from hookline.cli.settings import load_settings
from hookline.cli.train import parse_arguments
from hookline.config import LazyConfig, check_call_arguments, instantiate

RUNTIME = {"optimizer": ["params"], "optimizer.params": ["model"]}


@pytest.mark.parametrize("name", packaged_recipes())
def test_a_packaged_recipe_is_complete(name, tmp_path):
    cfg = load_settings(parse_arguments(["--config-file", name]))
    check_call_arguments(cfg, runtime=RUNTIME)
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    check_call_arguments(again, runtime=RUNTIME)
    assert LazyConfig.to_py(again) == LazyConfig.to_py(cfg)


@pytest.mark.parametrize("name", packaged_recipes())
def test_its_schedule_runs_from_start_to_end(name):
    cfg = LazyConfig.load(str(find_recipe(name)))
    schedule = instantiate(cfg.lr_multiplier)
    values = [schedule(step / 1000) for step in range(1000)]
    assert 0.9 < max(values) <= 1  # a cosine has fallen a little when the warm-up ends
    assert all(0 <= value <= 1 for value in values)


def test_the_step_schedules_of_coco():
    from hookline.configs.common.schedules import coco_multiplier

    once, thrice = instantiate(coco_multiplier(12)), instantiate(coco_multiplier(36))
    assert [once(k / 90_000) for k in (59_999, 60_000, 79_999, 80_000, 89_999)] == pytest.approx(
        [1, 0.1, 0.1, 0.01, 0.01]
    )
    steps = (209_999, 210_000, 249_999, 250_000)
    assert [thrice(k / 270_000) for k in steps] == pytest.approx([1, 0.1, 0.1, 0.01])
    assert once(0) == pytest.approx(0.001)
    assert once(500 / 90_000) == pytest.approx(0.5005)
