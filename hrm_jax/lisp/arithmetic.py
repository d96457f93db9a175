"""Numbers: arithmetic and comparison with bounded results.

Booleans and strings are not numbers. With ``quirks`` the host decides what an operator takes,
as in the original: #t counts as 1 and a string times an integer repeats the string.
"""

import functools
import math
import operator

from hrm_jax.lisp import errors, host, values

# One call may not take seconds: budgets are checked between steps.
_MODULAR_BITS = 4096
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
            ('pow', guard('pow', self._power), 2, 3 if self._quirks else 2),
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
            if not self._quirks:
                return self._host(function, arguments)
            result = self._host(function, [_as_host(value) for value in arguments])
            return values.make_list(result) if isinstance(result, list) else result

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
            if self._quirks:
                a, b = self._first_difference(a, b)
            return self._host(lambda pair: compare(*pair), [a, b])

        return call

    def _first_difference(self, a, b):
        """Returns what decides the order of two lists in the host."""
        while values.is_list(a) and values.is_list(b):
            pairs = zip(a, b, strict=False)
            limit = self._limits.max_nodes
            unequal = (p for p in pairs if not values.is_equal(*p, True, limit))
            pair = next(unequal, None)
            if pair is None:
                return a.size, b.size
            a, b = pair
        return [_as_host(value) for value in (a, b)]

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
        if self._quirks:
            return self._bounded(arguments[0] - self.total(arguments[1:]))
        return self._bounded(functools.reduce(operator.sub, arguments))

    def _times(self, a, b):
        if isinstance(a, int) and isinstance(b, int):
            if a.bit_length() + b.bit_length() > self._limits.max_bits + 1:
                self._too_large()
        elif isinstance(a, (str, list)) or isinstance(b, (str, list)):
            text, count = (a, b) if isinstance(a, (str, list)) else (b, a)
            if isinstance(count, int) and len(text) * count > self._limits.max_chars:
                raise errors.LispLimitError(
                    f'a string must have at most {self._limits.max_chars} characters, and a list '
                    f'that many elements'
                )
        return self._bounded(a * b)

    def _multiply(self, arguments):
        return self.product(arguments)

    def _divide(self, arguments):
        if len(arguments) == 1:
            return 1 / arguments[0]
        divide = operator.itruediv if self._quirks else operator.truediv  # named in the errors
        return functools.reduce(divide, arguments[1:], float(arguments[0]))

    def _power(self, arguments):
        base, exponent, *modulus = arguments
        if modulus:  # with quirks only
            if any(isinstance(n, int) and n.bit_length() > _MODULAR_BITS for n in arguments):
                raise errors.LispLimitError(
                    f'pow with three args takes integers of at most {_MODULAR_BITS} bits'
                )
            return pow(base, exponent, *modulus)
        integers = isinstance(base, int) and isinstance(exponent, int)
        if integers and (base.bit_length() - 1) * exponent > self._limits.max_bits:
            self._too_large()
        return self._bounded(base**exponent)


def _as_host(value):
    """What stands for a value among the operands of the host: its own lists, types of its names."""
    if values.is_list(value):
        return list(value)
    if isinstance(value, values.Builtin):
        return type(host.host_type(value), (), {})()
    return value
