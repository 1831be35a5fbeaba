import hashlib
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hookline.data.datasets import load_via_json, synthetic_balloons
from hookline.data.datasets.synthetic_balloons import generate_balloons


def digest(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    first = digest(generate_balloons(tmp_path / "a", 3, 2, seed=5))
    assert digest(generate_balloons(tmp_path / "b", 3, 2, seed=5)) == first
    other = digest(generate_balloons(tmp_path / "c", 3, 2, seed=6))
    assert not {v for k, v in other.items() if k.endswith("jpg")} & set(first.values())


def test_pictures_do_not_depend_on_how_many_there_are_and_splits_differ(tmp_path):
    few, many = (generate_balloons(tmp_path / str(n), n, 1) for n in (1, 3))
    assert {p.name for p in (few / "train").glob("*.jpg")} < {p.name for p in (many / "train").glob("*.jpg")}
    names = [p.name[:10] for p in many.rglob("*.jpg")]
    assert len(set(names)) == len(names) == 4


def test_the_files_are_like_the_real_ones(tmp_path, test_data):
    real = json.loads((test_data / "balloon/val/via_region_data.json").read_text())
    made = json.loads((generate_balloons(tmp_path, 2, 2) / "val/via_region_data.json").read_text())
    assert len(made) == 2
    pattern = next(iter(real.values()))
    for key, entry in made.items():
        assert entry.keys() == pattern.keys()
        assert key == f"{entry['filename']}{entry['size']}"
        for name, region in entry["regions"].items():
            assert name.isdigit()
            assert region.keys() == pattern["regions"]["0"].keys()
            assert region["shape_attributes"].keys() == pattern["regions"]["0"]["shape_attributes"].keys()


def test_the_loader_reads_them_and_polygons_are_sound(tmp_path):
    folder = generate_balloons(tmp_path, 12, 1, seed=1) / "train"
    records = load_via_json(folder / "via_region_data.json", folder, thing_classes=["balloon"])
    assert len(records) == 12
    for record in records:
        with Image.open(record["file_name"]) as image:
            assert image.size == (record["width"], record["height"])
            assert 210 <= min(image.size) <= max(image.size) <= 480
        assert record["annotations"]
        for annotation in record["annotations"]:
            points = np.reshape(annotation["segmentation"][0], (-1, 2))
            assert 20 <= len(points) <= 40
            assert (points >= 0).all()
            assert (points < (record["width"], record["height"])).all()
            x0, y0, x1, y1 = annotation["bbox"]
            assert (x1 - x0) * (y1 - y0) > 40


def test_a_complete_set_is_used_again_and_a_damaged_or_different_one_replaced(tmp_path):
    folder = generate_balloons(tmp_path, 2, 1)
    before = digest(folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    generate_balloons(tmp_path, 2, 1)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == stamps
    picture = next(folder.rglob("*.jpg"))
    picture.write_bytes(picture.read_bytes()[:-1])
    generate_balloons(tmp_path, 2, 1)
    assert digest(folder) == before
    generate_balloons(tmp_path, 1, 2)
    assert len(list((folder / "val").glob("*.jpg"))) == 2
    assert os.listdir(tmp_path) == ["balloon"]


def test_an_interrupted_run_leaves_nothing_and_keeps_the_older_set(tmp_path, monkeypatch):
    folder = generate_balloons(tmp_path, 1, 1)
    before = digest(folder)
    draw = synthetic_balloons.draw_scene
    calls = []

    def interrupted(rng):
        calls.append(rng)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(rng)

    monkeypatch.setattr(synthetic_balloons, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        generate_balloons(tmp_path, 3, 1)
    assert digest(folder) == before
    assert os.listdir(tmp_path) == ["balloon"]


def test_what_a_killed_run_left_is_removed_after_hours_only(tmp_path):
    old, young = tmp_path / ".balloon.generating.old", tmp_path / ".balloon.generating.young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (time.time() - 24 * 3600,) * 2)
    generate_balloons(tmp_path, 1, 1)
    assert not old.exists()
    assert young.exists()


def test_a_set_that_was_not_generated_is_left_alone(tmp_path):
    (tmp_path / "balloon/train").mkdir(parents=True)
    (tmp_path / "balloon/train/mine.jpg").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="was not generated"):
        generate_balloons(tmp_path, 1, 1)
    assert digest(tmp_path).keys() == {"balloon/train/mine.jpg"}


@pytest.mark.parametrize(("argument", "value"), [("num_train", 0), ("num_val", -1), ("seed", -1)])
def test_arguments_out_of_range_are_refused(tmp_path, argument, value):
    with pytest.raises(ValueError, match=f"{argument} is at least"):
        generate_balloons(tmp_path, **{argument: value})
