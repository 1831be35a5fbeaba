"""Recipes as LazyConfig files."""
