"""``hookline env``: the environment table, for bug reports and as the health check of an image."""

from __future__ import annotations

import argparse

__all__ = ["run"]


def run(argv: list[str]) -> int:
    """Print versions and devices.

    Args:
        argv: the arguments behind ``hookline env``; there are none but ``--help``.

    Returns:
        The exit code, 0.
    """
    argparse.ArgumentParser(prog="hookline env", description="Print versions and devices.").parse_args(argv)
    from hookline.engine.environment import collect_env_info

    print(collect_env_info())
    return 0
