"""Data: names and formats of data sets, transforms, the mapper, the training stream, the loaders."""

from hookline.data import datasets, transforms
from hookline.data.build import (
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from hookline.data.catalog import DatasetCatalog, Metadata, MetadataCatalog, UnknownDatasetError
from hookline.data.checks import DatasetCheckError, check_records
from hookline.data.draws import MapperError
from hookline.data.errors import BadSampleError
from hookline.data.loader import TestLoader, TrainLoader, trivial_batch_collator
from hookline.data.mapper import DatasetMapper
from hookline.data.samplers import (
    InferenceSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
    repeat_factors_from_category_frequency,
)
from hookline.data.serialized import DatasetFromList, MapDataset
from hookline.data.stream import TrainingStream
from hookline.data.workers import DataWorkerError

__all__ = [
    "BadSampleError",
    "DataWorkerError",
    "DatasetCatalog",
    "DatasetCheckError",
    "DatasetFromList",
    "DatasetMapper",
    "InferenceSampler",
    "MapDataset",
    "MapperError",
    "Metadata",
    "MetadataCatalog",
    "RepeatFactorTrainingSampler",
    "TestLoader",
    "TrainLoader",
    "TrainingSampler",
    "TrainingStream",
    "UnknownDatasetError",
    "build_detection_test_loader",
    "build_detection_train_loader",
    "check_records",
    "datasets",
    "get_detection_dataset_dicts",
    "repeat_factors_from_category_frequency",
    "transforms",
    "trivial_batch_collator",
]
