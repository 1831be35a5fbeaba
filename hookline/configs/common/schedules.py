"""Learning-rate multipliers as functions of progress; a recipe sets ``train.max_iter`` beside them."""

from omegaconf import DictConfig

from hookline.config import LazyCall as L
from hookline.engine.schedule import CosineParamScheduler, MultiStepParamScheduler, WarmupParamScheduler


def coco_multiplier(epochs: int) -> DictConfig:
    """Make the step schedule for COCO with 16 images a batch: x0.1 at 60,000 and 20,000 steps before the end.

    One "epoch" is 7,500 steps here, so that 12 give the well-known 90,000 of the 1x schedule. The 1x schedule itself
    steps at 60,000 and 80,000.
    """
    total = epochs * 7500
    drops = [60_000, 80_000] if epochs == 12 else [total - 60_000, total - 20_000]
    steps = L(MultiStepParamScheduler)(values=[1.0, 0.1, 0.01], milestones=[*drops, total])
    return L(WarmupParamScheduler)(scheduler=steps, warmup_length=1000 / total, warmup_factor=0.001)


def cosine_multiplier(warmup: float = 0.05, start: float = 0.01, end: float = 0.0) -> DictConfig:
    """Make a half-cosine from 1 to ``end`` behind a linear warm-up from ``start`` over the share ``warmup``."""
    curve = L(CosineParamScheduler)(start_value=1.0, end_value=end)
    return L(WarmupParamScheduler)(scheduler=curve, warmup_length=warmup, warmup_factor=start)
