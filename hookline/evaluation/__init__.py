"""Evaluator protocol and loop; metrics."""
