"""Evaluator protocol and loop; metrics."""

from hookline.evaluation.coco_evaluation import evaluate_predictions
from hookline.evaluation.coco_evaluator import COCOEvaluator
from hookline.evaluation.evaluator import DatasetEvaluator, DatasetEvaluators
from hookline.evaluation.inference import inference_context, inference_on_dataset
from hookline.evaluation.interruption import EvaluationInterrupted, StopWatcher
from hookline.evaluation.records import records_to_coco
from hookline.evaluation.tables import print_csv_format

__all__ = [
    "COCOEvaluator",
    "DatasetEvaluator",
    "DatasetEvaluators",
    "EvaluationInterrupted",
    "StopWatcher",
    "evaluate_predictions",
    "inference_context",
    "inference_on_dataset",
    "print_csv_format",
    "records_to_coco",
]
