"""One CSV file of metrics per run: a row per iteration, never half a row."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path

from marl_td.training.files import write_atomic

MAX_BYTES = 2**30
"""Largest file that is read."""


class MetricsFile:
    """Appends rows to a CSV file whose columns grow as new metrics appear.

    A row is written in one call, so that a crash loses at most that row; when a metric appears for the
    first time the file is replaced as a whole. Cells of metrics that an iteration did not have are empty.

    Args:
        path: the file; rows already there are kept.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = read_metrics(path) if path.exists() else []
        self.columns = list(rows[0]) if rows else []

    def keep_before(self, iteration: int, column: str = "counters/iter") -> None:
        """Drop the rows from ``iteration`` on: a resumed run writes them again."""
        if self.columns:
            rows = [row for row in read_metrics(self.path) if float(row[column]) < iteration]
            self._replace(rows)

    def write(self, row: Mapping[str, float]) -> None:
        """Append one row."""
        new = [column for column in row if column not in self.columns]
        if new:
            rows = read_metrics(self.path) if self.path.exists() else []
            self.columns += new
            self._replace([*rows, {key: _text(value) for key, value in row.items()}])
            return
        line = io.StringIO()
        writer = csv.DictWriter(line, self.columns, lineterminator="\n")
        writer.writerow({key: _text(value) for key, value in row.items()})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line.getvalue())

    def _replace(self, rows: list[dict[str, str]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomic(self.path, text.getvalue().encode())


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics file; a last line that a crash cut short is left out.

    Raises:
        ValueError: if it is too large, or holds something else than numbers under names.
    """
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"'{path}' has {path.stat().st_size} bytes; at most {MAX_BYTES} are read.")
    try:
        text = path.read_bytes().decode("utf-8")
        whole = text[: text.rfind("\n") + 1]
        rows = list(csv.DictReader(io.StringIO(whole)))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"'{path}' is no table of metrics: {error}.") from error
    for number, row in enumerate(rows, start=2):
        for name, value in row.items():
            if name is None or value is None or not _is_number(value):
                raise ValueError(
                    f"'{path}' is no table of metrics: line {number} has {str(value)[:60]!r} in the column "
                    f"{name!r}, where a number belongs."
                )
    return rows


def _is_number(text: str) -> bool:
    """Whether a cell is empty or a number."""
    try:
        float(text or "0")
    except ValueError:
        return False
    return True


def column(rows: list[dict[str, str]], x: str, y: str) -> tuple[list[float], list[float]]:
    """The values of column ``y`` and where they were taken (``x``), without empty cells."""
    pairs = [(float(row[x]), float(row[y])) for row in rows if row.get(y) and row.get(x)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def _text(value: float) -> str:
    return f"{value:.9g}"
