import math

from hookline.evaluation import print_csv_format
from hookline.evaluation.tables import category_table, metric_table


def test_csv_lines_leave_categories_out(caplog):
    with caplog.at_level("INFO"):
        print_csv_format({"bbox": {"AP": 41.23456, "APs": math.nan, "AP-person": 5.0}, "speed": 3})
    assert caplog.messages == [
        "copypaste: Task: bbox",
        "copypaste: AP,APs",
        "copypaste: 41.2346,nan",
        "copypaste: speed=3",
    ]


def test_tables_hold_every_number():
    assert "12.346" in metric_table({"AP": 12.3456, "AP50": math.nan})
    lines = category_table({f"AP-class {k}": float(k) for k in range(7)}).splitlines()
    assert len(lines) == 2 + 3
    assert lines[0].count("category") == 3
    assert "class 6" in lines[-1]
    assert category_table({"AP-a": 1.0}).splitlines()[0].count("category") == 1
