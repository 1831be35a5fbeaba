"""The benchmarks' own helpers; what they measure is not judged here, as timed assertions fail on busy machines."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_an_unknown_name_is_refused_with_the_nearest():
    result = run("-m", "benchmarks", "mappr")
    assert result.returncode == 2
    assert "did you mean 'mapper'?" in result.stderr


def test_measure_and_table():
    code = (
        "from benchmarks import measure, print_table\n"
        "calls = []\n"
        "timing = measure(lambda: calls.append(1), min_time_s=0.0, warmup=2, min_calls=5)\n"
        "assert len(calls) == 7 and timing.calls == 5, timing\n"
        "assert 0 <= timing.best <= timing.median\n"
        "print_table([('a', 0.123456), ('bcd', 7)], ('name', 'value'), title='T')\n"
    )
    result = run("-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "",
        "**T**",
        "",
        "| name | value  |",
        "|------|--------|",
        "| a    | 0.1235 |",
        "| bcd  | 7      |",
    ]


def test_one_broken_benchmark_does_not_hide_the_others():
    code = (
        "import sys, types, benchmarks.__main__ as runner\n"
        "def broken(): raise RuntimeError('broken on purpose')\n"
        "for name, main in (('bad', broken), ('good', lambda: print('figures'))):\n"
        "    sys.modules[f'benchmarks.{name}'] = types.SimpleNamespace(main=main)\n"
        "runner.names, runner.print_machine = lambda: ['bad', 'good'], lambda: None\n"
        "sys.exit(runner.main([]))\n"
    )
    result = run("-c", code)
    assert result.returncode == 1
    assert "figures" in result.stdout
    assert "broken on purpose" in result.stderr
    assert "failed: bad" in result.stderr
