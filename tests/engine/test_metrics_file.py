"""The file of JSON lines as a journal."""

import json

from hookline.engine.metrics_file import read_rows


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_rows_of_an_iteration_are_joined(tmp_path):
    path = tmp_path / "metrics.json"
    write(path, {"iteration": 19, "x": 1.5}, {"iteration": 19, "AP": 40.0}, {"iteration": 39, "x": 2.5})
    assert read_rows(str(path), 100) == {19: {"x": 1.5, "AP": 40.0}, 39: {"x": 2.5}}
    assert read_rows(str(path), 39) == {19: {"x": 1.5, "AP": 40.0}}


def test_only_the_last_run_counts(tmp_path):
    path = tmp_path / "metrics.json"
    write(path, {"iteration": 19, "x": 1.0}, {"iteration": 39, "x": 1.0}, {"iteration": 19, "x": 2.0})
    assert read_rows(str(path), 100) == {19: {"x": 2.0}}


def test_what_is_no_row_is_passed_over(tmp_path):
    path = tmp_path / "metrics.json"
    write(path, {"iteration": 19, "x": 1.0})
    with path.open("a") as file:
        file.write('a remark\n[1]\n{"iteration": 39, "x": 2.0')
    assert read_rows(str(path), 100) == {19: {"x": 1.0}}
    assert read_rows(str(tmp_path / "none"), 100) == {}
