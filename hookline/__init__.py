"""Hookline: a Detectron2-style trainer engine for object detection and segmentation, in pure Python."""

__version__ = "0.1.0"
