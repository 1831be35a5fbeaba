import ast

import pytest

from hookline.config import ConfigError
from hookline.config.source import dict_lines, parse


def test_dictionaries_and_their_lines():
    text = (
        "a = dict(\n  x=1,\n  y=dict(z={}),\n  w={'v': {\n    2: {}}},\n)\nb = f(c={})\na.t = {}\nd = e = {'f': 1, **a}"
    )
    assert dict_lines(ast.parse(text)) == [
        (("a",), 1),
        (("a", "y"), 3),
        (("a", "y", "z"), 3),
        (("a", "w"), 4),
        (("a", "w", "v"), 4),
        (("d",), 9),
    ]


def test_sources_may_name_their_encoding(tmp_path):
    path = tmp_path / "r.py"
    path.write_bytes("# -*- coding: latin-1 -*-\nx = 'ü'\n".encode("latin-1"))
    namespace = {}
    exec(parse(path)[1], namespace)
    assert namespace["x"] == "ü"


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot read the recipe"):
        parse(tmp_path)
