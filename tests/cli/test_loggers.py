"""``train.loggers``: which writers a run has, what is refused, and what is drawn for them."""

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from hookline.cli import loggers as module
from hookline.cli.errors import UsageError
from hookline.cli.loggers import (
    build_histograms,
    build_prediction_logger,
    build_writers,
    check_loggers,
    flat_recipe,
    require_packages,
)
from hookline.cli.run_hooks import RunParts
from hookline.config import LazyCall as L
from hookline.configs.common import train as common
from hookline.engine import EventStorage, EventWriter, default_writers
from hookline.structures import Boxes, Instances


class OwnWriter(EventWriter):
    def __init__(self, path):
        self.path = path


def recipe(tmp_path, **loggers):
    train = OmegaConf.merge(common.train, {"output_dir": str(tmp_path), "max_iter": 10, "loggers": loggers})
    model = L(torch.nn.Linear)(in_features=4, out_features="${.in_features}")
    return OmegaConf.create({"train": train, "model": model, "sizes": [[1, 2], [3]], "place": "${oc.env:NOT_SET}"})


def writers(cfg, resume=False):
    return build_writers(RunParts(cfg, None, None, None, None, 10, resume=resume))


def test_the_default_is_detectron2s(tmp_path):
    expected = [type(writer) for writer in default_writers(str(tmp_path), 10)]
    assert [type(writer) for writer in writers(recipe(tmp_path))] == expected
    check_loggers(recipe(tmp_path))


def test_writers_are_chosen(tmp_path):
    cfg = recipe(
        tmp_path,
        console=False,
        tensorboard=None,
        wandb={"project": "toys", "name": "first", "mode": "offline", "log_checkpoints": "best"},
        mlflow=True,
        others=[L(OwnWriter)(path="here")],
        timeout_s=5,
    )
    check_loggers(cfg)
    json, wandb, mlflow, own = writers(cfg, resume=True)
    assert [type(writer).__name__ for writer in (json, wandb, mlflow)] == ["JSONWriter", "WandbWriter", "MLflowWriter"]
    assert wandb._init == {"project": "toys", "entity": None, "mode": "offline", "name": "first"}
    assert wandb.config["train.loggers.wandb.project"] == "toys"
    assert wandb.timeout_s == mlflow.timeout_s == 5.0
    assert wandb.checkpoint_dir == mlflow.checkpoint_dir == tmp_path
    assert json._continued
    assert wandb._continued
    assert own.path == "here"
    assert [type(writer).__name__ for writer in writers(recipe(tmp_path, tensorboard=False))] == [
        "CommonMetricPrinter", "JSONWriter",
    ]  # fmt: skip


def test_checkpoints_are_sent_from_their_own_folder(tmp_path):
    cfg = recipe(tmp_path, console=False, tensorboard=None, mlflow={"log_checkpoints": "last"})
    cfg.train.checkpointer.dir = str(tmp_path / "weights")
    mlflow = writers(cfg)[-1]
    assert mlflow.checkpoint_dir == tmp_path / "weights"
    assert mlflow.output_dir == tmp_path


def test_flat_recipe(tmp_path):
    flat = flat_recipe(recipe(tmp_path))
    assert flat["model.out_features"] == 4
    assert flat["model._target_"] == "torch.nn.Linear"
    assert flat["train.loggers.json"] is True
    assert flat["train.loggers.wandb"] == "None"
    assert (flat["sizes.0"], flat["sizes.1"]) == ("[1, 2]", "[3]")
    assert flat["place"] == "${oc.env:NOT_SET}"
    assert all(type(value) in (bool, int, float, str) for value in flat.values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"json": "yes"}, r"train\.loggers\.json='yes': expected true or false"),
        ({"wandb": {"projekt": "x"}}, r"unknown setting train\.loggers\.wandb\.projekt; did you mean .*project"),
        ({"wandb": "toys"}, r"train\.loggers\.wandb='toys': expected null"),
        ({"wandb": {"mode": "of"}}, r"train\.loggers\.wandb\.mode='of': expected 'online' or 'offline'"),
        (
            {"mlflow": {"log_checkpoints": "newest"}},
            r"mlflow\.log_checkpoints='newest': expected 'last', 'best', 'all'",
        ),
        ({"tensorboard": {"hparams": 1}}, r"train\.loggers\.tensorboard\.hparams=1"),
        ({"pictures": {"count": 0}}, r"train\.loggers\.pictures\.count=0"),
        ({"pictures": {"cuont": 8}}, r"pictures\.cuont; did you mean .*count"),
        ({"histograms": {"bins": 5}}, r"train\.loggers\.histograms\.period is missing"),
        ({"histograms": {"period": 1.5}}, r"train\.loggers\.histograms\.period=1\.5"),
        ({"timeout_s": -1}, r"train\.loggers\.timeout_s=-1"),
        ({"others": ["file"]}, r"train\.loggers\.others=.*expected a list of recorded calls"),
        ({"others": [5]}, r"train\.loggers\.others=\[5\]: expected a list of recorded calls"),
    ],
)
def test_refusals(tmp_path, settings, words):
    with pytest.raises(UsageError, match=words):
        check_loggers(recipe(tmp_path, **settings))


@pytest.mark.parametrize(
    ("settings", "missing", "words"),
    [
        ({"wandb": True}, "wandb", r"train\.loggers\.wandb: the package wandb .*pip install 'hookline\[wandb\]'"),
        ({"mlflow": {}}, "mlflow", r"train\.loggers\.mlflow: the package mlflow .*pip install 'hookline\[mlflow\]'"),
        ({"mlflow": {"tracking_uri": "sqlite:///x.db"}}, "sqlalchemy", "the package sqlalchemy"),
        ({"mlflow": {"tracking_uri": "http://host:5000"}}, "sqlalchemy", None),
        ({}, "wandb", None),
    ],
)
def test_a_logger_without_its_package(tmp_path, monkeypatch, settings, missing, words):
    found = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == missing else found(name))
    cfg = recipe(tmp_path, **settings)
    check_loggers(cfg)
    if words is None:
        require_packages(cfg)
        return
    with pytest.raises(UsageError, match=words):
        require_packages(cfg)


def test_a_folder_is_no_package(tmp_path, monkeypatch):
    """W&B leaves a folder `wandb` in the working directory, which Python takes for a package."""
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert module.importlib.util.find_spec("no_such_package") is not None
    assert not module._is_installed("no_such_package")


def test_histograms(tmp_path):
    assert build_histograms(recipe(tmp_path).train.loggers) is None
    hook = build_histograms(recipe(tmp_path, histograms={"period": 5, "gradients": False}).train.loggers)
    assert hook._every.period == 5
    assert not hook._gradients


class TestPredictions:
    def evaluate(self, logger, files, count):
        logger.reset()
        self.process(logger, files[:count])
        return logger.evaluate()

    def process(self, logger, files):
        instances = Instances((40, 60), pred_boxes=Boxes(torch.tensor([[10.0, 10.0, 30.0, 30.0]])))
        instances.scores, instances.pred_classes = torch.tensor([0.9]), torch.tensor([0])
        for file in files:
            logger.process([{"file_name": str(file)}], [{"instances": instances}])

    @pytest.fixture
    def files(self, tmp_path):
        from PIL import Image

        paths = [tmp_path / f"image {i}.png" for i in range(4)]
        for path in paths:
            Image.fromarray(np.full((40, 60, 3), 200, dtype=np.uint8)).save(path)
        return paths

    def logger(self, tmp_path, **settings):
        cfg = recipe(tmp_path, pictures=settings)
        return build_prediction_logger(cfg, "val", OmegaConf.create({"dataset": None}))

    def test_the_first_images_of_each_evaluation(self, tmp_path, files):
        logger = self.logger(tmp_path, count=2)
        with EventStorage(7) as storage:
            for _ in range(2):
                assert self.evaluate(logger, files, 4) == {}
            pictures = storage.pictures()
        assert [(p.name, p.iteration) for p in pictures] == [
            ("predictions/val/image_0", 7), ("predictions/val/image_1", 7),
        ] * 2  # fmt: skip
        image = pictures[0].image
        assert (image.shape, image.dtype) == ((3, 40, 60), np.uint8)
        assert (image[:, 30, 50] == 200).all()
        assert not (image == 200).all(), "the box is drawn"

    def test_an_evaluation_that_is_left_hands_nothing_over(self, tmp_path, files):
        logger = self.logger(tmp_path, count=2)
        with EventStorage() as storage:
            logger.reset()
            self.process(logger, files[:1])
            assert storage.pictures() == []
            self.evaluate(logger, files, 1)
            assert len(storage.pictures()) == 1

    def test_label_maps_are_drawn_too(self, tmp_path, files):
        logger = self.logger(tmp_path, count=1)
        scores = torch.zeros(2, 40, 60)
        scores[1, :, 30:] = 1.0
        with EventStorage() as storage:
            logger.reset()
            logger.process([{"file_name": str(files[0])}], [{"sem_seg": scores}])
            logger.evaluate()
            (picture,) = storage.pictures()
        assert (picture.image[:, 20, 10] != picture.image[:, 20, 50]).any()

    def test_other_predictions_end_no_evaluation(self, tmp_path, files, caplog):
        logger = self.logger(tmp_path, count=4)
        with EventStorage() as storage:
            for _ in range(2):
                logger.reset()
                logger.process([{"file_name": str(files[0])}], [{"score": 1.0}])
                logger.evaluate()
            assert storage.pictures() == []
        assert caplog.text.count("nothing is drawn: KeyError: 'instances'") == 1

    def test_nothing_is_drawn_outside_of_a_run(self, tmp_path, files):
        assert self.evaluate(self.logger(tmp_path), files, 1) == {}

    def test_off_by_default(self, tmp_path):
        assert build_prediction_logger(recipe(tmp_path), "", OmegaConf.create({})) is None
