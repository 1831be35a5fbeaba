"""What the checkpointer raises."""

__all__ = ["CheckpointError", "UnsafeCheckpointError"]


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, read, or fitted to the run; the message names the file and the reason."""


class UnsafeCheckpointError(CheckpointError):
    """A file refers to code; it was not loaded and nothing of it was executed."""
