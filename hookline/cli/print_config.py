"""``hookline print-config RECIPE [key=value ...]``: show what a recipe comes to, as text that loads again."""

import argparse
import sys

from hookline.cli.recipes import find_recipe
from hookline.config import ConfigError, LazyConfig, check_call_arguments

# Arguments that the command line of training gives when it builds the nodes.
_GIVEN_WHEN_BUILT = {"optimizer": ["params"], "optimizer.params": ["model"]}


def run(argv: list[str]) -> int:
    """Print a recipe with its overrides applied.

    Args:
        argv: The words behind ``hookline print-config``.

    Returns:
        The exit code: 0, or 2 if the recipe or an override is wrong.
    """
    options = _parser().parse_intermixed_args(argv)
    try:
        cfg = LazyConfig.load(find_recipe(options.recipe))
        LazyConfig.apply_overrides(cfg, options.overrides)
        if options.check:
            check_call_arguments(cfg, runtime=_GIVEN_WHEN_BUILT)
        text = LazyConfig.to_py(cfg) if options.format == "py" else LazyConfig.to_yaml(cfg)
    except ConfigError as error:
        print(f"hookline print-config: {error}", file=sys.stderr)
        return 2
    sys.stdout.write(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hookline print-config",
        description="Print a recipe, with overrides applied, as text that loads again as a recipe.",
    )
    parser.add_argument(
        "recipe", metavar="RECIPE", help="path of a recipe or saved config, or a packaged recipe's name"
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="overrides in Hydra's grammar")
    parser.add_argument("--format", choices=("yaml", "py"), default="yaml", help="what to print (default: yaml)")
    parser.add_argument("--check", action="store_true", help="also check every recorded call's arguments")
    return parser
