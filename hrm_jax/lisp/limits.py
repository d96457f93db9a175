"""Resource limits of a program.

The sizes always have a bound: they keep one step short, so that the budgets of steps and
time, which are checked between steps, end any program soon after they are spent.
"""

import dataclasses
import math
import time

from hrm_jax.lisp import errors


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds on a program.

    Attributes:
      max_steps: evaluations of any expression, atoms and heads of calls included; None: no
        bound.
      max_seconds: time; None: no bound.
      max_depth: calls that wait for a result. Calls in tail position do not wait.
      max_bits: size of an integer.
      max_nodes: parts of a value that is compared, simplified or copied at once, and elements
        of a list.
      max_chars: characters of a string, and of a printed value.
      max_load_depth: files that load each other.
    """

    max_steps: int | None = None
    max_seconds: float | None = None
    max_depth: int = 200_000
    max_bits: int = 100_000
    max_nodes: int = 1_000_000
    max_chars: int = 1_000_000
    max_load_depth: int = 100

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and not value >= 0:
                raise ValueError(f'Limits.{field.name} must not be negative; got {value}.')


class Budget:
    """Steps and time left; budgets nest, and an inner one never gives more than the outer."""

    __slots__ = ('deadline', 'last_step', 'steps')

    def __init__(self):
        self.steps = 0
        self.last_step = math.inf
        self.deadline = math.inf

    def narrow(self, steps: float | None, seconds: float | None) -> tuple[float, float]:
        """Adds a budget from now on; returns what ``restore`` needs to take it away."""
        outer = (self.last_step, self.deadline)
        if steps is not None:
            self.last_step = min(self.last_step, self.steps + steps)
        if seconds is not None:
            self.deadline = min(self.deadline, time.monotonic() + seconds)
        return outer

    def restore(self, outer: tuple[float, float]) -> None:
        self.last_step, self.deadline = outer

    def spend_step(self) -> None:
        """Raises LispTimeoutError or LispStepLimitError when nothing is left."""
        self.steps += 1
        if self.deadline != math.inf and time.monotonic() >= self.deadline:
            raise errors.LispTimeoutError('evaluation timed out')
        if self.steps > self.last_step:
            raise errors.LispStepLimitError('step budget exceeded')
