import subprocess
import sys

import pytest
from PIL import Image

from hookline.cli.browse import run
from hookline.data.datasets.synthetic_balloons import generate_balloons

RECIPE = """
import hookline.data.transforms as T
from hookline.config import LazyCall as L
from hookline.data import DatasetMapper, build_detection_train_loader, get_detection_dataset_dicts

dataloader = dict(
    train=L(build_detection_train_loader)(
        dataset=L(get_detection_dataset_dicts)(names="balloon_train"),
        mapper=L(DatasetMapper)(
            is_train=True,
            augmentations=[L(T.ResizeShortestEdge)(short_edge_length=100, max_size=200), L(T.RandomFlip)()],
            image_format="BGR",
            use_instance_mask=True,
        ),
        total_batch_size=2,
        num_workers=2,
    )
)
"""


@pytest.fixture
def balloons(tmp_path, monkeypatch):
    generate_balloons(tmp_path / "data", 3, 2)
    monkeypatch.setenv("HOOKLINE_DATASETS", str(tmp_path / "data"))
    return tmp_path


def test_ground_truth(balloons, capsys):
    assert run(["balloon_val", "--out", str(balloons / "out"), "--num", "5"]) == 0
    names = sorted(path.name for path in (balloons / "out").iterdir())
    assert len(names) == 3
    assert names[-1] == "sheet.jpg"
    assert names[0].startswith("0000_")
    assert "2 pictures" in capsys.readouterr().out


def test_augmented_samples_of_a_recipe(balloons):
    (balloons / "recipe.py").write_text(RECIPE)
    arguments = [
        "--recipe",
        str(balloons / "recipe.py"),
        "dataloader.train.mapper.augmentations.0.short_edge_length=120",
    ]
    assert run([*arguments, "--out", str(balloons / "out"), "--num", "5"]) == 0
    pictures = sorted((balloons / "out").glob("0*.jpg"))
    assert len(pictures) == 5
    assert run(["balloon_val", *arguments, "--out", str(balloons / "val"), "--num", "3"]) == 0
    drawn = {path.name[5:] for path in (balloons / "val").glob("0*.jpg")}
    assert len(drawn) == 2  # of the other split, drawn again in the second epoch
    with Image.open(pictures[0]) as picture:
        assert max(picture.size) == 400


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["balloon_vla", "--out", "x"], "balloon_val"),
        (["--out", "x"], "say which data set"),
        (["a", "b", "--out", "x"], "one data set at a time"),
        (["a", "k=1", "--out", "x"], "--recipe"),
        (["balloon_val", "--out", "x", "--num", "0"], "at least 1"),
        (["--recipe", "balloon/nothing_like_it", "--out", "x"], "nothing_like_it"),
    ],
)
def test_wrong_calls(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = run(arguments)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_missing_data_is_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOOKLINE_DATASETS", str(tmp_path / "nowhere"))
    assert run(["balloon_val", "--out", str(tmp_path / "out")]) == 1
    assert "HOOKLINE_DATASETS" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_help_needs_no_torch():
    code = "import sys\nfrom hookline.cli.browse import run\ntry:\n    run(['--help'])\nexcept SystemExit:\n    pass\n"
    subprocess.run(
        [sys.executable, "-c", f"{code}assert 'torch' not in sys.modules"], check=True, stdout=subprocess.DEVNULL
    )
