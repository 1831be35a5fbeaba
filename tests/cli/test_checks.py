"""What is said of a setting that nothing reads."""

import pytest

from hookline.cli.checks import check_names
from hookline.cli.errors import UsageError


@pytest.mark.parametrize(
    ("key", "words"), [("max_itre", "; did you mean train.max_iter? Own"), ("x", "; expected one of max_iter. Own")]
)
def test_an_unknown_name_is_told_in_sentences(key, words):
    with pytest.raises(UsageError) as refused:
        check_names([key], ["max_iter"], "train")
    assert words in str(refused.value)
