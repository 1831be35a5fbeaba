"""What goes wrong with FFRecord files."""

__all__ = ["ChecksumError", "FFRecordError"]


class FFRecordError(OSError, RuntimeError):
    """A file is not what it should be, or is used in a way it cannot serve; the message names file and byte or index.

    It is an ``OSError``, as other failures to read are, and a ``RuntimeError``, which the original library raises.
    """


class ChecksumError(FFRecordError):
    """The bytes of a sample, or of a header, are not those that were written."""
