"""ROIAlign as a module."""

from torch import Tensor, nn
from torchvision.ops import roi_align


class ROIAlign(nn.Module):
    """Sample regions of one feature map to a fixed size by bilinear interpolation.

    Args:
        output_size: (height, width) of the result, or one number for both.
        spatial_scale: Feature cells per image pixel (1 / stride).
        sampling_ratio: Samples per output cell and axis; 0 takes as many as the region has cells.
        aligned: Whether pixel centres lie at half integers (correct) or at integers (as before 2019).

    Source: He et al., "Mask R-CNN", 2017, section 3.
    """

    def __init__(
        self, output_size: int | tuple[int, int], spatial_scale: float, sampling_ratio: int, aligned: bool = True
    ) -> None:
        super().__init__()
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.aligned = aligned

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        """Pool regions.

        Args:
            input: (B, C, H, W) feature map.
            rois: (R, 5): index of the image in the batch, then XYXY in image pixels.

        Returns:
            (R, C, *output_size) in the type of `input`.
        """
        # In float32 under mixed precision too: bfloat16 cannot tell neighbouring pixels apart beyond 256.
        pooled = roi_align(
            input.float(), rois.float(), self.output_size, self.spatial_scale, self.sampling_ratio, self.aligned
        )
        return pooled.to(input.dtype)

    def extra_repr(self) -> str:
        """Return what `print(model)` shows of this layer."""
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, aligned={self.aligned}"
        )
