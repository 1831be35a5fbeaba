import pytest

from hookline.evaluation import DatasetEvaluator, DatasetEvaluators


class Recorder(DatasetEvaluator):
    def __init__(self, task, calls):
        self.task, self.calls = task, calls

    def reset(self):
        self.calls.append((self.task, "reset"))

    def process(self, inputs, outputs):
        self.calls.append((self.task, "process", inputs, outputs))

    def evaluate(self):
        self.calls.append((self.task, "evaluate"))
        return {self.task: {"score": 1.0}} if self.task else None


def test_several_are_called_in_order_and_their_results_joined():
    calls = []
    both = DatasetEvaluators([Recorder("a", calls), Recorder("b", calls), Recorder("", calls)])
    both.reset()
    both.process([1], [2])
    assert both.evaluate() == {"a": {"score": 1.0}, "b": {"score": 1.0}}
    assert [call[:2] for call in calls] == [
        (t, what) for what in ("reset", "process", "evaluate") for t in ("a", "b", "")
    ]
    assert calls[3][2:] == ([1], [2])


def test_two_tasks_of_one_name_are_refused():
    with pytest.raises(ValueError, match="under the name 'a'"):
        DatasetEvaluators([Recorder("a", []), Recorder("a", [])]).evaluate()


def test_only_evaluators_are_taken():
    with pytest.raises(TypeError, match="got str"):
        DatasetEvaluators(["bbox"])
    with pytest.raises(TypeError, match="abstract"):
        DatasetEvaluator()


class Known(Recorder):
    def metric_names(self, model=None):
        return [f"{self.task}/{model}"]

    def class_names(self):
        return ["cat"]


def test_the_metrics_of_several_are_known_if_those_of_each_are():
    both = DatasetEvaluators([Known("a", []), Known("b", [])])
    assert both.metric_names("AP") == ["a/AP", "b/AP"]
    assert DatasetEvaluators([Known("a", []), Recorder("b", [])]).metric_names() is None
    assert DatasetEvaluators([Recorder("b", []), Known("a", [])]).class_names() == ["cat"]
    assert Recorder("b", []).metric_names() is None
    assert Recorder("b", []).class_names() is None
