"""The progress bar of a run, on stderr; silent where stderr is no terminal unless asked for."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from tqdm import tqdm


class Progress:
    """Counts frames and shows the latest numbers.

    Args:
        total: frames of the whole run.
        initial: frames already done.
        show: None shows it on a terminal only.
        label: what runs.
    """

    def __init__(self, total: int, initial: int, show: bool | None, label: str) -> None:
        self._label = self._said = label
        visible = sys.stderr.isatty() if show is None else show
        self._bar: Any = tqdm(
            total=total,
            initial=initial,
            desc=label,
            unit=" frames",
            unit_scale=True,
            disable=not visible,
            dynamic_ncols=True,
            file=sys.stderr,
        )
        self._shown: dict[str, str] = {}

    def update(self, frames: int, **numbers: float) -> None:
        """Count ``frames`` more and show ``numbers`` (those that are NaN keep their last value)."""
        known = {name: f"{value:.4g}" for name, value in numbers.items() if value == value}
        self._shown.update(known)
        self._bar.set_postfix(self._shown, refresh=False)
        self._bar.update(frames)

    def say(self, text: str) -> None:
        """Show ``text`` behind the label; an empty one shows the label alone."""
        description = f"{self._label}: {text}" if text else self._label
        if description != self._said:
            self._bar.set_description(description)
            self._said = description

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.close()
