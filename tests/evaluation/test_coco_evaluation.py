import json
import pickle

import pytest

from hookline.evaluation import COCOEvaluator, evaluate_predictions


@pytest.fixture
def evaluated(instances_json, noisy, tmp_path):
    evaluator = COCOEvaluator(instances_json, output_dir=tmp_path / "inference")
    evaluator.reset()
    for inputs, outputs in noisy:
        evaluator.process(inputs, outputs)
    return evaluator, evaluator.evaluate()


def same(first, second):
    assert first.keys() == second.keys()
    for task in first:
        # bit for bit, NaN included
        assert list(map(repr, first[task].items())) == list(map(repr, second[task].items()))


def test_saved_results_give_the_same_numbers(evaluated, instances_json, tmp_path):
    evaluator, results = evaluated
    written = tmp_path / "inference" / "coco_instances_results.json"
    assert json.loads(written.read_text()) == evaluator.predictions()
    same(evaluate_predictions(written, instances_json), results)
    same(evaluate_predictions(evaluator.predictions(), instances_json), results)
    with open(tmp_path / "out.pkl", "wb") as file:
        pickle.dump(evaluator.predictions(), file)
    same(evaluate_predictions(tmp_path / "out.pkl", instances_json, tasks=["segm"]), {"segm": results["segm"]})
    evaluator.save_predictions(tmp_path / "new" / "out.json")
    assert (tmp_path / "new" / "out.json").read_bytes() == written.read_bytes()
    assert [p.name for p in written.parent.iterdir()] == ["coco_instances_results.json"]


def test_other_tools_results_without_boxes(evaluated, instances_json):
    evaluator, results = evaluated
    rows = [{k: v for k, v in row.items() if k != "bbox"} for row in evaluator.predictions()]
    same(evaluate_predictions(rows, instances_json), {"segm": results["segm"]})
    with pytest.raises(ValueError, match="hold nothing for the task 'bbox', only segm"):
        evaluate_predictions(rows, instances_json, tasks=["bbox"])


def test_no_results_are_nan(tiny_json):
    metrics = evaluate_predictions([], tiny_json)["bbox"]
    assert all(value != value for value in metrics.values())


ROW = {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ROW, {k: v for k, v in ROW.items() if k != "score"}], r"result 1 \(image 7\) has no 'score'"),
        ([ROW, {**ROW, "category_id": 4}], r"result 1 \(image 7\): .*tiny.json has no category 4"),
        ([ROW, {**ROW, "image_id": 70}], "predictions for image 70"),
        ([{**ROW, "bbox": [1, 2, 3]}], "result 0: 'bbox' has 3 numbers"),
        ([ROW, {k: v for k, v in ROW.items() if k != "bbox"}], "has no 'bbox', but other results have it"),
        ([{k: v for k, v in ROW.items() if k != "bbox"}], "none of 'bbox', 'segmentation', 'keypoints'"),
        ([{**ROW, "segmentation": [[1, 2, 3, 4, 5, 6]]}], "result 0: 'segmentation' must be a run-length code"),
        ([{**ROW, "keypoints": [1, 2, 3]}, {**ROW, "keypoints": [1, 2, 3, 4, 5, 6]}], "'keypoints' has 6 numbers"),
    ],
)
def test_a_wrong_result_is_named(tiny_json, rows, words):
    with pytest.raises(ValueError, match=words):
        evaluate_predictions(rows, tiny_json)


@pytest.mark.parametrize("content", [b"[{]", b'{"a": 1}', b"[1]"])
def test_a_file_of_something_else_is_refused(tiny_json, tmp_path, content):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.json"):
        evaluate_predictions(path, tiny_json)


def test_a_pickle_that_runs_code_is_refused_before_it_does(tiny_json, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "out.pkl"
    path.write_bytes(pickle.dumps([Bomb()]))
    with pytest.raises(ValueError, match=r"out.pkl cannot be read as results: it holds .*open, not plain values"):
        evaluate_predictions(path, tiny_json)
    assert not (tmp_path / "ran").exists()


def test_evaluate_comes_before_saving(tiny_json, tmp_path):
    evaluator = COCOEvaluator(tiny_json)
    assert evaluator.predictions() == []
    with pytest.raises(RuntimeError, match="call that first"):
        evaluator.save_predictions(tmp_path / "out.json")
