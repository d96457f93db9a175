"""Algebraic simplification of an expression, without evaluating it.

Sums and products are flattened, their neutral parts dropped and constants folded; ``if``,
``and``, ``or`` with literal booleans are decided; ``begin`` is flattened. ``quote`` is left
alone. Names are taken to mean the builtins, and no part is taken to fail: ``(* 0 x)`` is 0.

By default the value stays what evaluation gives. With ``quirks`` as the original:
``(/ 0 0)`` becomes 0, products are folded in floating point, ``(and x)`` becomes ``x`` though
``and`` answers #t or #f, and parameter lists are simplified like calls.
"""

import functools
import operator
from typing import Any

from hrm_jax.lisp import arithmetic, errors, values
from hrm_jax.lisp import limits as limits_lib


class Simplifier:
    """Rules over lists whose parts are simple already."""

    def __init__(self, limits: limits_lib.Limits, quirks: bool = False):
        self._limits = limits
        self._quirks = quirks
        self._numbers = arithmetic.Arithmetic(limits, quirks)
        self._rules = {
            '+': self._sum,
            '*': self._product,
            '-': self._difference,
            '/': self._quotient,
            'if': self._if,
            'and': functools.partial(self._logic, is_and=True),
            'or': functools.partial(self._logic, is_and=False),
            'begin': self._begin,
        }

    def __call__(self, expr: Any) -> Any:
        """Returns the simplified expression.

        Raises:
          LispLimitError: the expression has too many parts.
        """
        if type(expr) is not values.Pair or _is_call(expr, 'quote'):
            return expr
        nodes = 0
        done: list[Any] = []
        # Each entry: the parts of a list that still wait, and those that are simple.
        stack: list[tuple[Any, list[Any]]] = [self._open(expr)]
        while stack:
            waiting, simple = stack[-1]
            for part in waiting:
                nodes += 1
                if nodes > self._limits.max_nodes:
                    raise errors.LispLimitError(
                        f'an expression to simplify must have at most {self._limits.max_nodes} '
                        f'parts; this one has more'
                    )
                if type(part) is values.Pair and not _is_call(part, 'quote'):
                    stack.append(self._open(part))
                    break
                simple.append(part)
            else:
                stack.pop()
                result = self._rewrite(simple)
                (stack[-1][1] if stack else done).append(result)
        return done[0]

    def _open(self, expr: values.Pair) -> tuple[Any, list[Any]]:
        head = expr.car
        if type(head) is values.Symbol and head in ('lambda', 'define') and not self._quirks:
            return iter(_tail(expr, 2)), [head, *list(expr)[1:2]]
        return iter(expr), []

    def _rewrite(self, parts: list[Any]) -> Any:
        rule = self._rules.get(parts[0]) if type(parts[0]) is values.Symbol else None
        if rule is not None:
            try:
                return rule(parts[0], parts[1:])
            except (ArithmeticError, ValueError, errors.LispError):
                pass  # the expression fails when it is evaluated: leave it as it stands
        return values.make_list(parts)

    def _flat(self, name: str, parts: list[Any]) -> list[Any]:
        result = []
        for part in parts:
            if _is_call(part, name):
                result.extend(part.cdr)
            else:
                result.append(part)
        return result

    def _sum(self, head, parts):
        parts = [part for part in self._flat('+', parts) if not _is_value(part, 0)]
        if all(values.is_number(part) for part in parts):
            return self._numbers.total(parts)
        return parts[0] if len(parts) == 1 else values.make_list([head, *parts])

    def _product(self, head, parts):
        parts = self._flat('*', parts)
        if any(_is_value(part, 0) for part in parts):
            return 0
        parts = [part for part in parts if not _is_value(part, 1)]
        if len(parts) == 1:
            return parts[0]
        if all(values.is_number(part) for part in parts):
            if self._quirks:
                return _integral(functools.reduce(operator.mul, parts, 1.0))
            return _integral(self._numbers.product(parts))
        return values.make_list([head, *parts])

    def _difference(self, head, parts):
        if len(parts) == 2 and self._quirks and _is_value(parts[1], 0):
            return parts[0]
        if parts and all(values.is_number(part) for part in parts):
            if len(parts) == 1:
                return -parts[0]
            if self._quirks:
                return _integral(functools.reduce(operator.sub, map(float, parts)))
            return functools.reduce(operator.sub, parts)
        if len(parts) == 2 and _is_value(parts[1], 0):
            return parts[0]
        return values.make_list([head, *parts])

    def _quotient(self, head, parts):
        if len(parts) == 2:
            if _is_value(parts[1], 1):
                return parts[0]
            if _is_value(parts[0], 0) and (self._quirks or not _is_value(parts[1], 0)):
                return 0
        if parts and all(values.is_number(part) for part in parts):
            first, rest = (1.0, parts) if len(parts) == 1 else (parts[0], parts[1:])
            result = functools.reduce(operator.truediv, rest, first)
            return result if self._quirks and len(parts) == 1 else _integral(result)
        return values.make_list([head, *parts])

    def _if(self, head, parts):
        if len(parts) == 3 and isinstance(parts[0], bool):
            return parts[1] if parts[0] else parts[2]
        return values.make_list([head, *parts])

    def _logic(self, head, parts, is_and):
        kept = []
        for part in parts:
            if part is is_and:
                continue
            if part is not (not is_and):
                kept.append(part)
            elif is_and or self._quirks or not kept:
                return not is_and
            else:
                # (or x #t): x may be true and not #t, so it still matters.
                kept.append(part)
                break
        if not kept:
            return is_and
        if len(kept) == 1 and (self._quirks or not is_and):
            return kept[0]
        return values.make_list([head, *kept])

    def _begin(self, head, parts):
        if self._quirks:
            flat = self._flat('begin', parts)
            if len(flat) == 1:
                return flat[0]
            return values.make_list([head, *flat]) if flat else values.Nil()
        # An empty begin has no value, so one at the end is the answer and has to stay.
        keep_last = bool(parts) and _is_call(parts[-1], 'begin') and parts[-1].size == 1
        flat = self._flat('begin', parts[:-1] if keep_last else parts)
        return values.make_list([head, *flat, *parts[-1:]] if keep_last else [head, *flat])


def _tail(expr: values.Pair, count: int) -> Any:
    for _ in range(min(count, expr.size)):
        expr = expr.cdr
    return expr


def _is_call(part: Any, name: str) -> bool:
    return type(part) is values.Pair and type(part.car) is values.Symbol and part.car == name


def _is_value(part: Any, number: int) -> bool:
    return values.is_number(part) and part == number


def _integral(number: Any) -> Any:
    if isinstance(number, float) and number.is_integer():
        return int(number)
    return number
