import sys

import pytest
import torch

import config_parts as parts
from hookline.config import ConfigError, dotted_name, locate


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (torch.nn.Linear, "torch.nn.Linear"),
        (torch.optim.SGD, "torch.optim.SGD"),
        (torch.relu, "torch.relu"),
        (torch.bfloat16, "torch.bfloat16"),
        (parts.ResNet.make_default_stages, "config_parts.ResNet.make_default_stages"),
        (parts.ResNet.of_depth, "config_parts.ResNet.of_depth"),
        (parts.Catalog.get, "config_parts.Catalog.get"),
        (parts.Mode.FAST, "config_parts.Mode.FAST"),
        (dict, "builtins.dict"),
        (len, "builtins.len"),
    ],
)
def test_names_lead_back(thing, name):
    assert dotted_name(thing) == name
    assert locate(name) == thing


@pytest.mark.parametrize("thing", [3, "x", object(), lambda: 0, parts.Stem(1), parts.Stem(1).__repr__])
def test_live_objects_have_no_name(thing):
    with pytest.raises(ConfigError):
        dotted_name(thing)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torch.nn.Linaer", "torch.nn has no 'Linaer'; did you mean 'Linear'"),
        ("torch.nn.Linear.foward", "Linear has no 'foward'; did you mean 'forward'"),
        ("hookline.confg.locate", "there is no module|has no 'confg'; did you mean 'config'"),
        ("torhc.nn.Linear", "no module 'torhc'; did you mean 'torch'"),
        ("Linear", "is no builtin"),
        ("a b.c", "is no dotted name"),
        ("", "is no dotted name"),
        ("torch..nn", "is no dotted name"),
    ],
)
def test_refusals_name_the_nearest(name, words):
    with pytest.raises(ConfigError, match=words):
        locate(name)


def test_a_module_that_fails_is_told_from_one_that_is_missing(write, monkeypatch, tmp_path):
    write("fails_to_import.py", "import nothing_of_this_name")
    write("raises_on_import.py", "1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="importing 'fails_to_import' failed: No module named 'nothing_of_this_name'"):
        locate("fails_to_import.x")
    with pytest.raises(ConfigError, match="importing 'raises_on_import' failed: ZeroDivisionError"):
        locate("raises_on_import.x")


def test_a_module_hidden_by_a_function_of_its_name(write, monkeypatch, tmp_path):
    write("hiding_package/__init__.py", "from hiding_package.train import train")
    write("hiding_package/train.py", "def train(): pass\ndef main(): pass")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert locate("hiding_package.train.main").__name__ == "main"
        assert dotted_name(locate("hiding_package.train.main")) == "hiding_package.train.main"
        assert dotted_name(locate("hiding_package.train")) == "hiding_package.train"
    finally:
        for module in [m for m in sys.modules if m.startswith("hiding_package")]:
            del sys.modules[module]
