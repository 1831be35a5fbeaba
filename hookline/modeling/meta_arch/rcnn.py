"""Detectors in two stages.

Axes: B images, C channels, H W pixels of the padded batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hookline.modeling._checks import check_positive
from hookline.modeling.backbone.backbone import Backbone
from hookline.modeling.postprocessing import detector_postprocess
from hookline.structures import ImageList, Instances

Sample = dict[str, Any]
Prediction = dict[str, Instances]


class GeneralizedRCNN(nn.Module):
    """Features of whole images, proposals from them, and heads that look at each proposal.

    Args:
        backbone: Gives the feature maps.
        proposal_generator: Gives the proposals; None if samples bring their own `proposals`.
        roi_heads: Gives the detections.
        pixel_mean: Mean of each channel, in the order of the images, subtracted from them.
        pixel_std: Standard deviation of each channel, which they are divided by.
        input_format: Order of the channels that the model is trained on ("BGR", "RGB"); for those who draw.

    Raises:
        ValueError: If mean and standard deviation do not fit.

    Source: Ren et al., "Faster R-CNN", 2015; He et al., "Mask R-CNN", 2017.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        proposal_generator: nn.Module | None,
        roi_heads: nn.Module,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        input_format: str | None = None,
    ) -> None:
        super().__init__()
        if len(pixel_mean) != len(pixel_std):
            raise ValueError(f"pixel_mean has {len(pixel_mean)} channels, pixel_std {len(pixel_std)}.")
        for value in pixel_std:
            check_positive(pixel_std=value)
        self.backbone = backbone
        self.proposal_generator = proposal_generator
        self.roi_heads = roi_heads
        self.input_format = input_format
        # Not in checkpoints: they are part of the recipe.
        self.register_buffer("pixel_mean", torch.tensor(list(pixel_mean)).float().view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(list(pixel_std)).float().view(-1, 1, 1), persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the model is, and where it moves its inputs."""
        return self.pixel_mean.device

    @property
    def predicted_fields(self) -> tuple[str, ...] | None:
        """Names of the fields of its predictions, for those who evaluate; None where its heads do not tell."""
        switches = {"pred_masks": "mask_on", "pred_keypoints": "keypoint_on"}
        if not all(hasattr(self.roi_heads, switch) for switch in switches.values()):
            return None
        others = [field for field, switch in switches.items() if getattr(self.roi_heads, switch)]
        return ("pred_boxes", "scores", "pred_classes", *others)

    def forward(self, batched_inputs: list[Sample]) -> dict[str, Tensor] | list[Prediction]:
        """Compute the losses of a batch in training, or predictions in evaluation.

        Args:
            batched_inputs: Samples: `image` uint8 (C, H, W); in training `instances`; in evaluation `height` and
                `width` of the original, or the predictions are in the input's pixels; `proposals` (Instances)
                without a proposal generator.

        Returns:
            Scalar losses by name in training; otherwise a dict with `instances` for each sample.

        Raises:
            ValueError: If a sample lacks `instances` in training.
        """
        if not self.training:
            return self.inference(batched_inputs)
        lacking = [
            str(sample.get("file_name", index))
            for index, sample in enumerate(batched_inputs)
            if "instances" not in sample
        ]
        if lacking:
            raise ValueError(f"samples without `instances` in training: {', '.join(lacking)}.")
        images = self.preprocess_image(batched_inputs)
        targets = [sample["instances"].to(self.device) for sample in batched_inputs]
        features = self.backbone(images.tensor)
        proposals, losses = self._propose(images, features, batched_inputs, targets)
        _, head_losses = self.roi_heads(images, features, proposals, targets)
        return {**losses, **head_losses}

    @torch.no_grad()
    def inference(
        self,
        batched_inputs: list[Sample],
        detected_instances: list[Instances] | None = None,
        do_postprocess: bool = True,
    ) -> Any:
        """Predict.

        Args:
            batched_inputs: Samples; see `forward`.
            detected_instances: If given, `pred_boxes` and `pred_classes` of each image in the input's pixels, whose
                masks and keypoints are wanted.
            do_postprocess: Whether to scale the results to the original images.

        Returns:
            A dict with `instances` for each sample; without post-processing, the instances themselves, in the
            input's pixels.

        Raises:
            ValueError: In training mode.
        """
        if self.training:
            raise ValueError("inference needs the model in evaluation mode: call model.eval() first.")
        images = self.preprocess_image(batched_inputs)
        features = self.backbone(images.tensor)
        if detected_instances is None:
            proposals, _ = self._propose(images, features, batched_inputs, None)
            results, _ = self.roi_heads(images, features, proposals, None)
        else:
            given = [instances.to(self.device) for instances in detected_instances]
            results = self.roi_heads.forward_with_given_boxes(features, given)  # type: ignore[operator]
        return self._postprocess(results, batched_inputs, images.image_sizes) if do_postprocess else results

    def preprocess_image(self, batched_inputs: list[Sample]) -> ImageList:
        """Normalise the images, and pad them into one batch.

        Args:
            batched_inputs: Samples with `image` (C, H, W) of any sizes.

        Returns:
            float32 (B, C, H, W), zero in the padding.
        """
        images = [sample["image"].to(self.device, non_blocking=True) for sample in batched_inputs]
        return ImageList.from_tensors(
            [(image - self.pixel_mean) / self.pixel_std for image in images],
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    def _propose(
        self,
        images: ImageList,
        features: dict[str, Tensor],
        batched_inputs: list[Sample],
        targets: list[Instances] | None,
    ) -> tuple[list[Instances], dict[str, Tensor]]:
        if self.proposal_generator is not None:
            return self.proposal_generator(images, features, targets)
        return [sample["proposals"].to(self.device) for sample in batched_inputs], {}

    @staticmethod
    def _postprocess(
        instances: list[Instances], batched_inputs: list[Sample], image_sizes: list[tuple[int, int]]
    ) -> list[Prediction]:
        return [
            {"instances": detector_postprocess(own, sample.get("height", size[0]), sample.get("width", size[1]))}
            for own, sample, size in zip(instances, batched_inputs, image_sizes, strict=True)
        ]
