"""Interpreter: evaluates programs. The entry point for Python code.

interpreter = Interpreter(limits=Limits(max_steps=10_000, max_seconds=1.0))
interpreter.run('(define (square x) (* x x)) (square 7)')  # [define's symbol, 49]
"""

from collections.abc import Callable, Iterator
import sys
from typing import Any

from hrm_jax.lisp import builtins, values
from hrm_jax.lisp import limits as limits_lib
from hrm_jax.lisp import machine as machine_lib
from hrm_jax.lisp import reader as reader_lib


class Interpreter:
    """One global scope, and programs that share it.

    Args:
      write: takes the text of ``display``, ``newline`` and traces; standard output by default.
      limits: bounds on every program (each ``run`` has the full budget of steps and time).
      original_quirks: behave as HRM-Lisp's mini_lisp where that differs.
      allow_use: let ``use`` import modules of the host, which may do anything.
      allow_load: let ``load`` read any file that this process can read; ``allow_use`` implies it.
    """

    def __init__(
        self,
        write: Callable[[str], Any] | None = None,
        limits: limits_lib.Limits = limits_lib.Limits(),
        original_quirks: bool = False,
        allow_use: bool = False,
        allow_load: bool = False,
    ):
        self.limits = limits
        self.quirks = original_quirks
        self._write = write or _write_out
        self._reader = reader_lib.Reader(original_quirks)
        scope = values.Environment()
        builtins.install(scope, self._reader, limits, original_quirks, allow_use, allow_load)
        self._machine = machine_lib.Machine(scope, self._write, limits, original_quirks)

    def bind(self, name: str, value: Any) -> None:
        """Binds a name in the global scope, e.g. to a ``values.Builtin``."""
        self._machine.globals[name] = value

    def read(self, text: str) -> list[Any]:
        """Returns the expressions of ``text``; raises LispParseError."""
        return self._reader.read_all(text)

    def evaluate(self, expressions: list[Any]) -> Iterator[Any]:
        """Yields the value of each expression as it is reached, under one budget.

        Raises:
          LispError: a fault, or a limit; nothing else, whatever the program.
        """
        budget = self._machine.budget
        outer = budget.narrow(self.limits.max_steps, self.limits.max_seconds)
        try:
            for expression in expressions:
                yield self._machine.run(expression)
        finally:
            budget.restore(outer)

    def run(self, text: str) -> list[Any]:
        """Reads and evaluates a program; returns the value of every expression."""
        return list(self.evaluate(self.read(text)))

    def run_file(self, path: str) -> list[Any]:
        """Evaluates a UTF-8 file."""
        return self.run(builtins.read_file(path))

    def text(self, value: Any) -> str:
        """Returns the printed form of a value."""
        return values.to_text(value, self.quirks, self.limits.max_chars)


def _write_out(text: str) -> None:
    sys.stdout.write(text)
