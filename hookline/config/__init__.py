"""LazyConfig: record a call, load a file, override, instantiate, save."""
