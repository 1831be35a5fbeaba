"""Where bytes live: paths and atomic files."""
