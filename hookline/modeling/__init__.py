"""Layers, backbones, proposal generators, ROI heads, meta architectures."""
