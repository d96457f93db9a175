"""Every error that a Lisp program can end with.

All of them derive from ``LispError``; ``kind`` names the class of the fault, so that callers
need not parse texts: parse, syntax, unbound, arity, type, value, arithmetic, limit, recursion,
io, host.
"""


class LispError(Exception):
    """A Lisp program is wrong, or failed.

    Attributes:
      kind: class of the fault.
      stack: texts of the expressions under evaluation, innermost first, at most 20.
      in_limits: the fault happened inside ``eval-with-limits``.
    """

    kind = 'value'

    def __init__(self, message: str, kind: str | None = None):
        super().__init__(message)
        if kind is not None:
            self.kind = kind
        self.stack: list[str] = []
        self.in_limits = False

    def format_stack(self, original_quirks: bool = False) -> str:
        """Returns the stack as indented lines under a heading, '' when it is empty."""
        if not self.stack:
            return ''
        # The original's heading claims the opposite of the order that it prints.
        order = 'most recent call last' if original_quirks else 'innermost first'
        return '\n'.join([f'Lisp stack ({order}):', *(f'  {line}' for line in self.stack)])


class LispParseError(LispError):
    """The text is not a sequence of complete expressions."""

    kind = 'parse'


class LispLimitError(LispError):
    """A limit on the size of numbers, lists, texts or output was reached."""

    kind = 'limit'


class LispStepLimitError(LispLimitError):
    """The step budget is spent."""


class LispTimeoutError(LispLimitError):
    """The time budget is spent."""


class LispRecursionError(LispLimitError):
    """More calls wait for their result than ``Limits.max_depth`` allows."""

    kind = 'recursion'
