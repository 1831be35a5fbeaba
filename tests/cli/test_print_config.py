import pytest

from hookline.cli.print_config import run

RECIPE = """
from hookline.config import LazyCall as L
train = dict(max_iter=10, seed=3)
model = L("builtins.dict")(a="${train.seed}")
loader = L("fractions.Fraction")(numerator=1)
"""


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.py"
    path.write_text(RECIPE)
    return str(path)


@pytest.mark.parametrize("form", ["yaml", "py"])
def test_what_is_printed_is_a_recipe(recipe, tmp_path, capsys, form):
    assert run([recipe, "--format", form, "train.max_iter=5", "+train.note='a b'", "~loader"]) == 0
    first = capsys.readouterr().out
    (tmp_path / f"printed.{form}").write_text(first)
    assert run([str(tmp_path / f"printed.{form}"), "--format", form]) == 0
    assert capsys.readouterr().out == first
    assert "max_iter" in first
    assert "loader" not in first


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["nowhere"], "no recipe 'nowhere'"),
        (["RECIPE", "train.max_itr=5"], "did you mean 'max_iter'"),
        (["RECIPE", "loader.numerater=5"], "did you mean 'numerator'"),
        (["RECIPE", "--check", "+loader.numerater=5"], "Fraction has no argument 'numerater'"),
        (["RECIPE", "+loader._target_=x", "--check"], "there already"),
    ],
)
def test_wrong_calls_end_with_2(recipe, capsys, argv, words):
    assert run([recipe if word == "RECIPE" else word for word in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert words in err
    assert "Traceback" not in err


@pytest.mark.parametrize("argv", [[], ["--format", "xml", "r.py"], ["r.py", "--nothing"]])
def test_wrong_options_end_with_2(argv, capsys):
    with pytest.raises(SystemExit) as caught:
        run(argv)
    assert caught.value.code == 2


def test_check_passes(recipe, capsys):
    assert run([recipe, "--check", "optimizer=3"]) == 2
    assert run([recipe, "--check"]) == 0
    assert "max_iter: 10" in capsys.readouterr().out
