"""LazyConfig: record a call, load a file, override, instantiate, save."""

from hookline.config.arguments import check_call_arguments
from hookline.config.errors import ConfigError, RecipeImportError
from hookline.config.instantiate import instantiate
from hookline.config.lazy import LazyCall
from hookline.config.lazyconfig import LazyConfig
from hookline.config.names import dotted_name, locate

__all__ = [
    "ConfigError",
    "LazyCall",
    "LazyConfig",
    "RecipeImportError",
    "check_call_arguments",
    "dotted_name",
    "instantiate",
    "locate",
]
