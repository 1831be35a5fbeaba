"""What is raised when a file or an annotation of a data set cannot be used."""

from __future__ import annotations

from typing import Any

__all__ = ["BadSampleError"]


class BadSampleError(ValueError):
    """An image or an annotation that cannot be used; the text names the file and the annotation.

    The functions that look at annotations do not know the file: whoever does sets ``file_name`` while the error passes.

    Args:
        message: what is wrong, without file and annotation.
        file_name: the image's file, where known.
        annotation_id: the annotation's ``id`` in its data set's file (its position in the record where it has none).

    Attributes:
        message: as given.
        file_name: as given; may be filled in later.
        annotation_id: as given.
    """

    def __init__(self, message: str, file_name: str | None = None, annotation_id: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.file_name = file_name
        self.annotation_id = annotation_id

    def __str__(self) -> str:
        annotation = None if self.annotation_id is None else f"annotation {self.annotation_id}"
        return ": ".join(part for part in (self.file_name, annotation, self.message) if part is not None)
