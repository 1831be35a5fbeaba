"""Drawing samples and predictions."""

from hookline.visualization.colormap import class_color, class_colors
from hookline.visualization.output import VisImage
from hookline.visualization.sheets import draw_batch, draw_comparison, draw_sample, grid
from hookline.visualization.visualizer import ColorMode, Visualizer

__all__ = [
    "ColorMode",
    "VisImage",
    "Visualizer",
    "class_color",
    "class_colors",
    "draw_batch",
    "draw_comparison",
    "draw_sample",
    "grid",
]
