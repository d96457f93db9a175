"""Numbers: arithmetic and comparison with bounded results.

Booleans and strings are not numbers. With ``quirks`` the host decides what an operator takes,
as in the original: #t counts as 1 and a string times an integer repeats the string.
"""

import functools
import math
import operator

from hrm_jax.lisp import errors, values

_FAULTS = {ArithmeticError: 'arithmetic', ValueError: 'arithmetic', TypeError: 'type'}


class Arithmetic:
    """The numeric procedures; each takes the list of its arguments."""

    def __init__(self, limits, quirks: bool):
        self._limits = limits
        self._quirks = quirks

    def table(self):
        """Returns (name, function, least, most arguments) of every procedure."""
        guard = self._guarded
        return [
            ('+', guard('+', self._add), 0, None),
            ('-', guard('-', self._subtract), 1, None),
            ('*', guard('*', self._multiply), 0, None),
            ('/', guard('/', self._divide), 1, None),
            ('sqrt', guard('sqrt', lambda a: math.sqrt(a[0])), 1, 1),
            ('pow', guard('pow', self._power), 2, 2),
            ('<', self._comparison('<', operator.lt), 2, 2),
            ('<=', self._comparison('<=', operator.le), 2, 2),
            ('>', self._comparison('>', operator.gt), 2, 2),
            ('>=', self._comparison('>=', operator.ge), 2, 2),
        ]

    def product(self, numbers):
        """Returns the product, within the limits."""
        return functools.reduce(self._times, numbers, 1)

    def total(self, numbers):
        """Returns the sum, within the limits."""
        return self._bounded(functools.reduce(operator.add, numbers, 0))

    def _guarded(self, name, function):
        def call(arguments):
            if not self._quirks:
                self._require_numbers(name, arguments)
            return self._host(function, self._as_host(arguments))

        return call

    def _comparison(self, name, compare):
        def call(arguments):
            a, b = arguments
            if not self._quirks and not (
                (type(a) is str and type(b) is str) or (values.is_number(a) and values.is_number(b))
            ):
                raise errors.LispError(
                    f'{name} compares two numbers or two strings, got '
                    f'{values.type_name(a)} and {values.type_name(b)}',
                    'type',
                )
            return self._host(lambda pair: compare(*pair), self._as_host([a, b]))

        return call

    @staticmethod
    def _as_host(arguments):
        # Operators of the host on lists would be a third language; refuse them by type.
        if any(values.is_list(value) for value in arguments):
            return [_HostList() if values.is_list(value) else value for value in arguments]
        return arguments

    def _host(self, function, arguments):
        try:
            return function(arguments)
        except errors.LispError:
            raise
        except (ArithmeticError, ValueError, TypeError) as error:
            kind = next(k for fault, k in _FAULTS.items() if isinstance(error, fault))
            raise errors.LispError(str(error), kind) from error

    @staticmethod
    def _require_numbers(name, arguments):
        for value in arguments:
            if not values.is_number(value):
                raise errors.LispError(
                    f'{name} takes numbers, got {values.type_name(value)} '
                    f'{values.to_source(value, 60)}',
                    'type',
                )

    def _bounded(self, number):
        if isinstance(number, int) and number.bit_length() > self._limits.max_bits:
            self._too_large()
        if isinstance(number, complex) and not self._quirks:
            raise errors.LispError('the result is not a real number', 'arithmetic')
        return number

    def _too_large(self):
        raise errors.LispLimitError(
            f'an integer must have at most {self._limits.max_bits} bits; the result has more'
        )

    def _add(self, arguments):
        return self.total(arguments)

    def _subtract(self, arguments):
        if len(arguments) == 1:
            return -arguments[0]
        return self._bounded(functools.reduce(operator.sub, arguments))

    def _times(self, a, b):
        if isinstance(a, int) and isinstance(b, int):
            if a.bit_length() + b.bit_length() > self._limits.max_bits + 1:
                self._too_large()
        elif isinstance(a, str) or isinstance(b, str):
            text, count = (a, b) if isinstance(a, str) else (b, a)
            if isinstance(count, int) and len(text) * count > self._limits.max_chars:
                raise errors.LispLimitError(
                    f'a string must have at most {self._limits.max_chars} characters'
                )
        return self._bounded(a * b)

    def _multiply(self, arguments):
        return self.product(arguments)

    def _divide(self, arguments):
        if len(arguments) == 1:
            return 1 / arguments[0]
        return functools.reduce(operator.truediv, arguments[1:], float(arguments[0]))

    def _power(self, arguments):
        base, exponent = arguments
        integers = isinstance(base, int) and isinstance(exponent, int)
        if integers and (base.bit_length() - 1) * exponent > self._limits.max_bits:
            self._too_large()
        return self._bounded(base**exponent)


class _HostList:
    """Stands for a list among the host's operands: no operator takes it."""

    __slots__ = ()
