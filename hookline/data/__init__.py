"""Catalog, data set formats, mapper, transforms, samplers, loader."""
