import json
import subprocess
import sys

import pytest
from pycocotools.coco import COCO

from hookline.cli.convert import run
from hookline.data.datasets import load_coco_json, load_via_json


def test_the_balloons_become_coco(test_data, tmp_path, capsys):
    source = test_data / "balloon/val/via_region_data.json"
    output = tmp_path / "coco.json"
    assert run(["via", str(source), str(output), "--classes", "balloon"]) == 0
    assert capsys.readouterr().out == f"{output}: 13 images, 50 annotations, classes: balloon\n"
    assert [p.name for p in tmp_path.iterdir()] == ["coco.json"]
    via = load_via_json(source, source.parent, thing_classes=["balloon"])
    coco = load_coco_json(output, source.parent)
    assert [r["file_name"] for r in coco] == [r["file_name"] for r in via]
    for theirs, ours in zip(coco, via, strict=True):
        assert (theirs["height"], theirs["width"]) == (ours["height"], ours["width"])
        for a, b in zip(theirs["annotations"], ours["annotations"], strict=True):
            assert a["segmentation"] == b["segmentation"]
            x, y, w, h = a["bbox"]
            assert [x, y, x + w, y + h] == b["bbox"]
            assert a["area"] > 0
    assert len(COCO(str(output)).loadAnns(range(1, 51))) == 50


def test_images_in_another_folder(test_data, tmp_path):
    source = test_data / "balloon/val/via_region_data.json"
    (tmp_path / "via.json").write_text(source.read_text())
    assert run(["via", str(tmp_path / "via.json"), str(tmp_path / "o.json"), "--images", str(source.parent)]) == 0
    names = [image["file_name"] for image in json.loads((tmp_path / "o.json").read_text())["images"]]
    assert all((source.parent / name).is_file() for name in names)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON, line 1 column 2"),
        ("[]", "not VIA"),
        ('{"a": {"filename": "a.jpg", "regions": []}}', "a.jpg"),
    ],
)
def test_what_cannot_be_converted_leaves_nothing(tmp_path, capsys, content, words):
    (tmp_path / "via.json").write_text(content)
    assert run(["via", str(tmp_path / "via.json"), str(tmp_path / "o.json")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("hookline convert: ")
    assert words in error
    assert [p.name for p in tmp_path.iterdir()] == ["via.json"]


def test_a_missing_source_is_named(tmp_path, capsys):
    assert run(["via", str(tmp_path / "no.json"), str(tmp_path / "o.json")]) == 1
    assert f"no file {tmp_path}/no.json" in capsys.readouterr().err


@pytest.mark.parametrize("call", [[], ["voc", "a", "b"], ["via", "a"], ["via", "a", "b", "--classes", ","]])
def test_a_wrong_call(call, capsys):
    assert run(call) == 2
    assert "usage: hookline convert" in capsys.readouterr().err


def test_help_comes_without_torch():
    program = (
        "import sys; from hookline.cli.convert import run; run(['via', '--help']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "--class-attribute" in done.stdout
