"""Recipes for the balloon data set."""
