"""Masks to run-length codes: 100 masks of 480x640, as a mask model's predictions on one image."""

import numpy as np
import torch
from torch import Tensor

from benchmarks import measure, print_table
from hookline.structures import encode_masks, paste_masks_in_image

__all__ = ["main"]

MASKS, HEIGHT, WIDTH, SIDE = 100, 480, 640, 28
GOAL_MS = 3.0


def make_masks() -> tuple[Tensor, Tensor]:
    """Return blob-like mask probabilities (N, S, S) and their boxes (N, 4)."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    wobble = torch.rand(MASKS, SIDE, SIDE, generator=generator) * 0.2
    blobs = (1.1 - (rows**2 + columns**2) + wobble).clamp(0, 1)
    centres = torch.rand(MASKS, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    sides = torch.rand(MASKS, 2, generator=generator) * 200 + 20
    return blobs, torch.cat((centres - sides / 2, centres + sides / 2), dim=1)


def sampled(masks: Tensor, boxes: Tensor) -> Tensor:
    """Paste as Detectron2 does: every pixel of the image sampled by grid_sample, in row order."""
    x, y = torch.arange(WIDTH) + 0.5, torch.arange(HEIGHT) + 0.5
    x = (x - boxes[:, 0:1]) / (boxes[:, 2:3] - boxes[:, 0:1]) * 2 - 1
    y = (y - boxes[:, 1:2]) / (boxes[:, 3:4] - boxes[:, 1:2]) * 2 - 1
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=3)
    return torch.nn.functional.grid_sample(masks[:, None], grid, align_corners=False)[:, 0] >= 0.5


def main() -> None:
    """Print milliseconds and ratios; all codes must be the same bytes."""
    from pycocotools import mask as pycocotools_mask

    probabilities, boxes = make_masks()
    masks = paste_masks_in_image(probabilities, boxes, (HEIGHT, WIDTH))
    rows_first = masks.contiguous()
    numpy_masks = rows_first.numpy()

    def one_call() -> list[dict]:
        return pycocotools_mask.encode(np.asfortranarray(numpy_masks.transpose(1, 2, 0).astype(np.uint8)))

    def one_call_in_column_order() -> list[dict]:
        return pycocotools_mask.encode(masks.view(torch.uint8).permute(1, 2, 0).numpy())

    def one_per_mask() -> list[dict]:
        # Detectron2's and torchvision's evaluators do this
        return [pycocotools_mask.encode(np.array(m[:, :, None], order="F", dtype=np.uint8))[0] for m in numpy_masks]

    expected = one_per_mask()
    runs = {
        "Hookline, masks as it pastes them": lambda: encode_masks(masks),
        "Hookline, masks in row order": lambda: encode_masks(rows_first),
        "pycocotools, one call, masks as Hookline pastes them": one_call_in_column_order,
        "pycocotools, one call, masks in row order": one_call,
        "pycocotools, one call per mask": one_per_mask,
    }
    seconds = {name: measure(run, 0.5).best for name, run in runs.items()}
    base = next(iter(seconds.values()))
    table = [(name, 1e3 * s, s / base, runs[name]() == expected) for name, s in seconds.items()]
    print_table(
        table,
        ("masks to RLE", "ms", "times the first", "same bytes"),
        f"{MASKS} masks of {HEIGHT}x{WIDTH} to RLE, goal {GOAL_MS:g} ms",
    )
    pastes = {
        "Hookline": lambda: paste_masks_in_image(probabilities, boxes, (HEIGHT, WIDTH)),
        "grid_sample over the image (Detectron2's way on a GPU)": lambda: sampled(probabilities, boxes),
    }
    seconds = {name: measure(run, 0.5).best for name, run in pastes.items()}
    base = next(iter(seconds.values()))
    print_table(
        [(name, 1e3 * s, s / base) for name, s in seconds.items()],
        ("pasting", "ms", "times the first"),
        f"{MASKS} masks of {SIDE}x{SIDE} pasted into {HEIGHT}x{WIDTH}",
    )


if __name__ == "__main__":
    main()
