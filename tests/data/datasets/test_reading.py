import gc

import pytest

from hookline.data.datasets.reading import AnnotationFileError, paused_gc, read_json


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1,\n "b": oops}', "line 2 column 7"),
        ('{"a": [1, 2', "the file ends here: is it complete"),
        ("", "line 1 column 1"),
    ],
)
def test_malformed_json_names_file_and_place(tmp_path, text, place):
    file = tmp_path / "bad.json"
    file.write_text(text)
    with pytest.raises(AnnotationFileError) as caught:
        read_json(file)
    assert str(caught.value).startswith(f"{file}: not valid JSON, ")
    assert place in str(caught.value)


def test_text_that_is_not_utf8_names_the_byte(tmp_path):
    file = tmp_path / "bad.json"
    file.write_bytes(b'{"a": "\xff\xfe"}')
    with pytest.raises(AnnotationFileError, match="not UTF-8 text"):
        read_json(file)


def test_the_collector_is_left_as_it_was():
    with paused_gc():
        assert not gc.isenabled()
        with paused_gc():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
