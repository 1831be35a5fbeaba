"""The balloon data set (VIA annotations) under ``$HOOKLINE_DATASETS/balloon``: large images, one class."""

from omegaconf import OmegaConf

import hookline.data.transforms as T
from hookline.config import LazyCall as L
from hookline.data import (
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)
from hookline.evaluation import COCOEvaluator

train_records = L(get_detection_dataset_dicts)(names="balloon_train")
val_records = L(get_detection_dataset_dicts)(names="balloon_val", filter_empty=False)

dataloader = OmegaConf.create()
dataloader.train = L(build_detection_train_loader)(
    dataset=train_records,
    mapper=L(DatasetMapper)(
        is_train=True,
        augmentations=[
            L(T.ResizeShortestEdge)(
                short_edge_length=(640, 672, 704, 736, 768, 800), max_size=1333, sample_style="choice"
            ),
            L(T.RandomFlip)(horizontal=True),
        ],
        image_format="BGR",
        use_instance_mask=True,
    ),
    total_batch_size=16,
    num_workers=4,
    seed="${train.seed}",
)
dataloader.test = L(build_detection_test_loader)(
    dataset=val_records,
    mapper=L(DatasetMapper)(
        is_train=False,
        augmentations=[L(T.ResizeShortestEdge)(short_edge_length=800, max_size=1333)],
        image_format="${...train.mapper.image_format}",
    ),
    num_workers=4,
)
# for train.validation_loss: the test images with ground truth, as the test loader gives them
dataloader.validation = L(build_detection_test_loader)(
    dataset="${..test.dataset}",
    mapper=L(DatasetMapper)(
        is_train=True,
        augmentations="${...test.mapper.augmentations}",
        image_format="${...train.mapper.image_format}",
        use_instance_mask="${...train.mapper.use_instance_mask}",
    ),
    num_workers="${..test.num_workers}",
)
dataloader.evaluator = L(COCOEvaluator)(
    dataset="${..test.dataset}",
    metadata=L(MetadataCatalog.get)(name="${...test.dataset.names}"),
    output_dir="${train.output_dir}/inference",
)
