"""The metrics file of a run."""

from marl_td.training.metrics import MetricsFile, column, read_metrics


def test_rows_are_appended(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    file.write({"counters/iter": 0, "a": 1.5})
    file.write({"counters/iter": 1, "a": float("nan")})
    assert path.read_text() == "counters/iter,a\n0,1.5\n1,nan\n"


def test_columns_grow_and_missing_cells_are_empty(tmp_path):
    path = tmp_path / "metrics.csv"
    file = MetricsFile(path)
    file.write({"counters/iter": 0})
    file.write({"counters/iter": 1, "late": 2.0})
    file.write({"counters/iter": 2})
    assert path.read_text() == "counters/iter,late\n0,\n1,2\n2,\n"
    assert column(read_metrics(path), "counters/iter", "late") == ([1.0], [2.0])


def test_a_half_written_last_line_is_left_out(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("counters/iter,a\n0,1\n1,2")
    assert read_metrics(path) == [{"counters/iter": "0", "a": "1"}]


def test_a_resumed_run_goes_on_without_doubles(tmp_path):
    path = tmp_path / "metrics.csv"
    first = MetricsFile(path)
    for iteration in range(4):
        first.write({"counters/iter": iteration, "a": iteration})
    again = MetricsFile(path)
    again.keep_before(2)
    again.write({"counters/iter": 2, "a": 20})
    assert [row["a"] for row in read_metrics(path)] == ["0", "1", "20"]


def test_numbers_keep_nine_digits(tmp_path):
    MetricsFile(tmp_path / "m.csv").write({"a": 1 / 3, "b": 123456789.0})
    assert read_metrics(tmp_path / "m.csv") == [{"a": "0.333333333", "b": "123456789"}]
