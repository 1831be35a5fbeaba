"""The error that names file and annotation."""

import pickle

from hookline.data.errors import BadSampleError


def test_the_error_names_file_and_annotation_and_survives_pickling():
    error = BadSampleError("is bad", annotation_id=7)
    assert str(error) == "annotation 7: is bad"
    error.file_name = "a.jpg"
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "a.jpg: annotation 7: is bad"
    assert (copy.file_name, copy.annotation_id) == ("a.jpg", 7)
