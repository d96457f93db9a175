"""Special forms, and the stack frames that evaluate their parts.

Special forms are ``quote if define set! lambda begin and or``; in head position their names
cannot be shadowed.
"""

from typing import Any

from hrm_jax.lisp import errors, host, values

EVAL = object()  # "evaluate what was asked for": the answer of a frame without a value yet


def is_true(value: Any) -> bool:
    """Only #f and "no value" are false."""
    return value is not False and value is not None


class PassFrame:
    """An expression whose value is that of its last part (kept for the stack only)."""

    __slots__ = ('expr',)

    def __init__(self, expr):
        self.expr = expr

    def resume(self, machine, value):
        return value


class LimitFrame:
    """The border of an eval-with-limits."""

    __slots__ = ('expr', 'outer')

    def __init__(self, outer):
        self.expr = None
        self.outer = outer

    def resume(self, machine, value):
        machine.leave_limits(self.outer)
        return value


class HeadFrame:
    """A call whose head is a list under evaluation."""

    __slots__ = ('expr', 'scope')

    def __init__(self, expr, scope):
        self.expr = expr
        self.scope = scope

    def resume(self, machine, value):
        return machine.head_value(self.expr, value, self.scope)


class CallFrame:
    """A call: first the procedure arrives, then the arguments from left to right."""

    __slots__ = ('expr', 'rest', 'scope', 'values')

    def __init__(self, expr, scope):
        self.expr = expr
        self.scope = scope
        self.rest = expr.cdr
        self.values = []

    def resume(self, machine, value):
        self.values.append(value)
        rest = self.rest
        if rest is values.NIL:
            return machine.apply(self.expr, self.values[0], self.values[1:])
        self.rest = rest.cdr
        machine.push(self)
        return machine.evaluate_next(rest.car, self.scope)


class IfFrame:
    __slots__ = ('expr', 'scope')

    def __init__(self, expr, scope):
        self.expr = expr
        self.scope = scope

    def resume(self, machine, value):
        branches = self.expr.cdr.cdr
        chosen = branches.car if is_true(value) else branches.cdr.car
        return machine.evaluate_tail(self.expr, chosen, self.scope)


class BindFrame:
    """``define`` or ``set!`` waiting for the value."""

    __slots__ = ('expr', 'is_set', 'name', 'scope')

    def __init__(self, expr, name, scope, is_set):
        self.expr = expr
        self.name = name
        self.scope = scope
        self.is_set = is_set

    def resume(self, machine, value):
        scope = self.scope
        if values.is_list(self.name):  # with quirks only; the value comes first there
            raise errors.LispError("unhashable type: 'list'", 'type')
        if self.is_set:
            scope = scope.scope_of(self.name)
            if scope is None:
                raise errors.LispError(f'unbound symbol: {self.name}', 'unbound')
        if type(value) is values.Procedure and not value.name:
            value.name = str(self.name)
        scope.names[self.name] = value
        return self.name


class BodyFrame:
    """Expressions one after the other; the last one's value counts."""

    __slots__ = ('expr', 'rest', 'scope')

    def __init__(self, expr, rest, scope):
        self.expr = expr
        self.rest = rest
        self.scope = scope

    def resume(self, machine, value):
        rest = self.rest
        if rest.cdr is values.NIL:
            return machine.evaluate_tail(self.expr, rest.car, self.scope)
        self.rest = rest.cdr
        machine.push(self)
        return machine.evaluate_next(rest.car, self.scope)


class LogicFrame:
    """``and`` (answers #t or #f) or ``or`` (answers the first true value)."""

    __slots__ = ('expr', 'is_and', 'rest', 'scope')

    def __init__(self, expr, rest, scope, is_and):
        self.expr = expr
        self.rest = rest
        self.scope = scope
        self.is_and = is_and

    def resume(self, machine, value):
        if is_true(value) is not self.is_and:
            return False if self.is_and else value
        if self.rest is values.NIL:
            return self.is_and
        part = self.rest.car
        self.rest = self.rest.cdr
        machine.push(self)
        return machine.evaluate_next(part, self.scope)


def evaluate_body(machine, owner, body, scope):
    """Asks for the expressions of ``body``; an empty one has no value."""
    if body is values.NIL:
        return None
    if body.cdr is values.NIL:
        return machine.evaluate_tail(owner, body.car, scope)
    machine.push(BodyFrame(owner, body.cdr, scope))
    return machine.evaluate_next(body.car, scope)


def _require_parts(machine, expr, count):
    """Checks the number of parts, the form's name included."""
    if expr.size == count:
        return
    if machine.quirks:
        if expr.size < count:
            text = f'not enough values to unpack (expected {count}, got {expr.size})'
        else:
            text = f'too many values to unpack (expected {count})'
        raise errors.LispError(text, 'arity')
    raise errors.LispError(f'{expr.car} takes {count - 1} parts, got {expr.size - 1}', 'arity')


def _parameters(machine, value) -> tuple[str, ...]:
    if machine.quirks:
        if not values.is_list(value) and not isinstance(value, str):
            raise errors.LispError(f'{host.host_type(value)!r} object is not iterable', 'type')
        # Also the letters of a symbol: the host iterates over what comes.
        return tuple(values.Symbol(host.host_repr(part)) for part in value)
    valid = values.is_list(value) and all(type(name) is values.Symbol for name in value)
    if not valid or len(set(value)) != value.size:
        raise errors.LispError(
            f'parameters must be a list of different symbols; got {values.to_source(value)}',
            'syntax',
        )
    return tuple(value)


def _require_symbol(machine, name):
    if type(name) is not values.Symbol and not machine.quirks:
        raise errors.LispError(
            f'a name to bind must be a symbol; got {values.to_source(name)}', 'syntax'
        )


def _quote(machine, expr, scope):
    _require_parts(machine, expr, 2)
    return expr.cdr.car


def _if(machine, expr, scope):
    _require_parts(machine, expr, 4)
    machine.push(IfFrame(expr, scope))
    return machine.evaluate_next(expr.cdr.car, scope)


def _define(machine, expr, scope):
    if expr.size == 1:
        text = 'list index out of range' if machine.quirks else 'define takes 2 parts, got 0'
        raise errors.LispError(text, 'arity')
    target = expr.cdr.car
    if values.is_nil(target) and machine.quirks:
        raise errors.LispError('list index out of range', 'arity')
    if type(target) is values.Pair:
        name = target.car
        _require_symbol(machine, name)
        if type(name) is not values.Symbol:  # the host makes one of the text of anything
            name = values.Symbol(host.host_repr(name))
        params = _parameters(machine, target.cdr)
        scope.names[name] = values.Procedure(params, expr.cdr.cdr, scope, str(name))
        return name
    _require_parts(machine, expr, 3)
    _require_symbol(machine, target)
    machine.push(BindFrame(expr, target, scope, is_set=False))
    return machine.evaluate_next(expr.cdr.cdr.car, scope)


def _set(machine, expr, scope):
    _require_parts(machine, expr, 3)
    _require_symbol(machine, expr.cdr.car)
    machine.push(BindFrame(expr, expr.cdr.car, scope, is_set=True))
    return machine.evaluate_next(expr.cdr.cdr.car, scope)


def _lambda(machine, expr, scope):
    if expr.size == 1:
        text = 'lambda takes parameters, got none'
        if machine.quirks:
            text = 'not enough values to unpack (expected at least 2, got 1)'
        raise errors.LispError(text, 'arity')
    return values.Procedure(_parameters(machine, expr.cdr.car), expr.cdr.cdr, scope, '')


def _begin(machine, expr, scope):
    return evaluate_body(machine, expr, expr.cdr, scope)


def _logic(is_and):
    def evaluate(machine, expr, scope):
        if expr.size == 1:
            return is_and
        machine.push(LogicFrame(expr, expr.cdr.cdr, scope, is_and))
        return machine.evaluate_next(expr.cdr.car, scope)

    return evaluate


SPECIAL = {
    'quote': _quote,
    'if': _if,
    'define': _define,
    'set!': _set,
    'lambda': _lambda,
    'begin': _begin,
    'and': _logic(True),
    'or': _logic(False),
}
