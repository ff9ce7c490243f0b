"""The examples of the adapters' page run as they stand, without a warning."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs/tasks/adapters.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NEEDS = {"from_mpe": "mpe2", "from_vmas": "vmas"}


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_example_runs(number, capsys):
    code = EXAMPLES[number]
    for name, package in NEEDS.items():
        if name in code:
            pytest.importorskip(package)
    exec(compile(code, f"example {number}", "exec"), {"__name__": "example"})
    assert capsys.readouterr().out


def test_every_direction_has_an_example():
    for name in ("from_pettingzoo", "from_mpe", "from_numpy", "from_vmas", "to_pettingzoo"):
        assert any(f"{name}(" in code for code in EXAMPLES)
