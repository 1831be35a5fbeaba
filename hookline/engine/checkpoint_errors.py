"""What the checkpointer raises."""

__all__ = ["CheckpointError", "UnsafeCheckpointError"]


class CheckpointError(RuntimeError):
    """A checkpoint could not be written, read, or fitted to the run; the message names the file and the reason.

    Args:
        message: that.
        of_all_ranks: whether all ranks raise it together, so that one of them shows it.
    """

    def __init__(self, message: str, of_all_ranks: bool = False) -> None:
        super().__init__(message)
        self.of_all_ranks = of_all_ranks


class UnsafeCheckpointError(CheckpointError):
    """A file refers to code; it was not loaded and nothing of it was executed."""
