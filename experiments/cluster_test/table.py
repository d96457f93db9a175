"""Rows of the table that a cluster test prints."""

import dataclasses
import time


class Failed(Exception):
    """A run did not survive as it must."""


class Skipped(Exception):
    """This host cannot run a scenario; the message says what is missing."""


@dataclasses.dataclass
class Row:
    """One scenario.

    Attributes:
      name: what was done.
      outcome: what was measured, or why it failed or was skipped.
      began: ``time.monotonic()`` at its beginning.
      result: 'holds', 'FAILS' or 'skipped'.
    """

    name: str
    outcome: str
    began: float
    result: str = 'holds'

    def __post_init__(self) -> None:
        self.seconds = time.monotonic() - self.began


def markdown(rows: list[Row]) -> str:
    """Returns a table of all rows."""
    lines = ['| scenario | result | what happened | seconds |', '|---|---|---|---|']
    lines += [f'| {r.name} | {r.result} | {r.outcome} | {r.seconds:.0f} |' for r in rows]
    return '\n'.join(lines)
