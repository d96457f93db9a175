"""The evaluator: an explicit stack of frames in place of the host's recursion.

A frame waits for one value. ``resume`` takes it and either returns the frame's own value or
asks for another evaluation (``machine.evaluate_next`` and the result ``EVAL``). Whatever the
program nests is on a Python list, so depth is bounded by ``Limits.max_depth`` and not by
the host's stack. An expression in tail position replaces its frame; with ``quirks`` it does
not, and depth is bounded as it was for the original, which had no tail calls.
"""

from collections.abc import Callable
from typing import Any

from hrm_jax.lisp import errors, forms, host, values
from hrm_jax.lisp import limits as limits_lib

EVAL = forms.EVAL

# The host allowed 1000 frames of its own and the original used about three for a Lisp call;
# the exact place of its recursion error differs between host versions.
_ORIGINAL_DEPTH = 330
_STACK_LINES = 20


class Machine:
    """State of one evaluation.

    Attributes:
      write: takes output text.
      tracing: print every expression before its evaluation, inside eval-with-limits.
      globals: the scope of ``eval`` and ``load``.
      quirks: behave as the original does where that differs (the table in __init__.py).
    """

    def __init__(
        self,
        global_scope: values.Environment,
        write: Callable[[str], None],
        limits: limits_lib.Limits,
        quirks: bool,
    ):
        self.globals = global_scope
        self.write = write
        self.limits = limits
        self.quirks = quirks
        self.tracing = False
        self.load_depth = 0
        self.budget = limits_lib.Budget()
        self.max_depth = min(limits.max_depth, _ORIGINAL_DEPTH) if quirks else limits.max_depth
        self._frames: list[Any] = []
        self._scopes: list[int] = []  # heights of the stack at each open eval-with-limits
        self._next: tuple[Any, values.Environment] = (None, global_scope)
        self._current: Any = None

    def run(self, expr: Any, scope: values.Environment | None = None) -> Any:
        """Evaluates one expression; the machine's own budget continues from the last one.

        Raises:
          LispError: with the stack of expressions under evaluation filled in.
        """
        self._frames, self._scopes, self.load_depth = [], [], 0
        frames = self._frames
        outer = (self.budget.last_step, self.budget.deadline)
        self.evaluate_next(expr, self.globals if scope is None else scope)
        value = EVAL
        try:
            while True:
                if value is EVAL:
                    value = self._evaluate(*self._next)
                elif frames:
                    frame = frames.pop()
                    self._current = frame.expr
                    value = frame.resume(self, value)
                else:
                    return value
        except errors.LispError as error:
            self._describe(error)
            raise
        except (MemoryError, RecursionError, OverflowError) as error:
            wrapped = errors.LispLimitError(f'the host ran out of room: {error}')
            self._describe(wrapped)
            raise wrapped from error
        finally:
            self.budget.restore(outer)

    def evaluate_next(self, expr: Any, scope: values.Environment) -> Any:
        """Asks for the evaluation of ``expr``; return the result of this from ``resume``."""
        self._next = (expr, scope)
        return EVAL

    def evaluate_tail(self, owner: Any, expr: Any, scope: values.Environment) -> Any:
        """Asks for ``expr``, whose value is the value of the expression ``owner``."""
        if self.quirks:
            self.push(forms.PassFrame(owner))
        self._next = (expr, scope)
        return EVAL

    def push(self, frame: Any) -> None:
        if len(self._frames) >= self.max_depth:
            text = 'maximum recursion depth exceeded'
            if not self.quirks:
                text += f': more than {self.max_depth} calls wait for their result'
            raise errors.LispRecursionError(text)
        self._frames.append(frame)

    def enter_limits(self, steps: float | None, seconds: float | None) -> None:
        """Opens an eval-with-limits, closed when the next value is delivered."""
        self.push(forms.LimitFrame(self.budget.narrow(steps, seconds)))
        self._scopes.append(len(self._frames))

    def leave_limits(self, outer: tuple[float, float]) -> None:
        self._scopes.pop()
        self.budget.restore(outer)

    def text(self, value: Any) -> str:
        return values.to_text(value, self.quirks, self.limits.max_chars)

    def _evaluate(self, expr: Any, scope: values.Environment) -> Any:
        self._current = None
        self.budget.spend_step()
        self._current = expr
        if self.tracing and self._scopes:
            depth = len(self._frames) - self._scopes[-1]
            self.write(f'{"  " * depth}{values.to_source(expr)}\n')
        kind = type(expr)
        if kind is values.Symbol:
            return scope[expr]
        if kind is not values.Pair:
            return values.Nil() if self.quirks and kind is values.Nil else expr
        return self._evaluate_list(expr, expr.car, scope)

    def _evaluate_list(self, expr: values.Pair, head: Any, scope: values.Environment) -> Any:
        kind = type(head)
        if kind is values.Symbol:
            form = forms.SPECIAL.get(head)
            if form is not None:
                return form(self, expr, scope)
        elif kind is values.Pair:
            self.push(forms.HeadFrame(expr, scope))
            return self.evaluate_next(head, scope)
        self.push(forms.CallFrame(expr, scope))
        return self.evaluate_next(head, scope)

    def head_value(self, expr: values.Pair, head: Any, scope: values.Environment) -> Any:
        """Goes on with a call whose head was a list and has the value ``head``."""
        if type(head) is values.Symbol:
            return self._evaluate_list(expr, head, scope)
        frame = forms.CallFrame(expr, scope)
        return frame.resume(self, head)

    def apply(self, expr: Any, function: Any, arguments: list[Any]) -> Any:
        """Calls a procedure; ``expr`` is the call's expression."""
        if type(function) is values.Procedure:
            if len(arguments) != len(function.params):
                raise errors.LispError(
                    f'expected {len(function.params)} args, got {len(arguments)}', 'arity'
                )
            scope = values.Environment(function.scope)
            scope.names.update(zip(function.params, arguments, strict=True))
            return forms.evaluate_body(self, expr, function.body, scope)
        if type(function) is values.Builtin:
            count = len(arguments)
            if count < function.least or (function.most is not None and count > function.most):
                raise errors.LispError(_arity_text(function, count), 'arity')
            if function.control:
                return function.function(self, expr, arguments)
            return function.function(arguments)
        if callable(function):
            return self._call_host(function, arguments)
        shown = host.host_repr(function) if self.quirks else values.to_source(function)
        raise errors.LispError(f'attempt to call non-procedure: {shown}', 'type')

    def _call_host(self, function: Callable, arguments: list[Any]) -> Any:
        try:
            return host.from_host(function(*(host.to_host(value) for value in arguments)))
        except Exception as error:  # a module of the user's may raise anything
            raise errors.LispError(f'{type(error).__name__}: {error}', 'host') from error

    def _describe(self, error: errors.LispError) -> None:
        error.in_limits = bool(self._scopes)
        base = self._scopes[-1] if self._scopes and self.quirks else 0
        if self.quirks and not self._scopes:
            return
        lines = [] if self._current is None else [values.to_source(self._current)]
        for frame in reversed(self._frames[base:]):
            if len(lines) == _STACK_LINES:
                break
            if frame.expr is not None:
                lines.append(values.to_source(frame.expr))
        error.stack = lines


def _arity_text(function: values.Builtin, count: int) -> str:
    if function.most is None:
        wanted = f'at least {function.least}'
    elif function.least == function.most:
        wanted = str(function.least)
    else:
        wanted = f'{function.least} to {function.most}'
    return f'{function.name} takes {wanted} args, got {count}'
