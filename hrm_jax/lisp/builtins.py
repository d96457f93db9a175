"""The procedures that every program finds, apart from the numeric ones (arithmetic.py)."""

import errno
import importlib
import math
import os
import stat
from typing import Any

from hrm_jax.lisp import arithmetic, errors, forms, host, simplifier, values

MAX_FILE_BYTES = 64 << 20


def install(
    scope: values.Environment, reader, limits, quirks: bool, allow_use: bool, allow_load: bool
) -> None:
    """Binds every builtin in ``scope``.

    Args:
      scope: the global scope.
      reader: reads the files of ``load``.
      limits: bounds on sizes.
      quirks: the original's behaviour where it differs.
      allow_use: let ``use`` import modules of the host, which may do anything.
      allow_load: let ``load`` read any file that this process can read.
    """
    lists = _Lists(limits, quirks)
    simplify = simplifier.Simplifier(limits, quirks)
    control = _Control(reader, simplify, quirks, allow_use, allow_load or allow_use)
    table = arithmetic.Arithmetic(limits, quirks).table() + lists.table()
    for name, function, least, most in table:
        scope[name] = values.Builtin(name, function, least, most)
    for name, function, least, most in control.table():
        scope[name] = values.Builtin(name, function, least, most, control=True)


class _Lists:
    """Lists, predicates and equality."""

    def __init__(self, limits, quirks):
        self._limits = limits
        self._quirks = quirks

    def table(self):
        return [
            ('=', self._equal, 2, 2),
            ('equal?', self._equal, 2, 2),
            ('eq?', self._identical, 2, 2),
            ('cons', self._cons, 2, 2),
            ('car', self._car, 1, 1),
            ('cdr', self._cdr, 1, 1),
            ('list', self._list, 0, None),
            ('length', self._length, 1, 1),
            ('null?', lambda a: values.is_nil(a[0]), 1, 1),
            ('list?', lambda a: values.is_list(a[0]), 1, 1),
            ('symbol?', lambda a: isinstance(a[0], values.Symbol), 1, 1),
            ('number?', lambda a: values.is_number(a[0]), 1, 1),
            ('boolean?', lambda a: isinstance(a[0], bool), 1, 1),
            ('pair?', lambda a: type(a[0]) is values.Pair, 1, 1),
            ('not', lambda a: not forms.is_true(a[0]), 1, 1),
        ]

    def _equal(self, arguments):
        a, b = arguments
        return values.is_equal(a, b, self._quirks, self._limits.max_nodes)

    def _identical(self, arguments):
        a, b = arguments
        if a is b:
            return True
        if type(a) is not type(b):
            return False
        if self._quirks:  # identity in the host, which has one object for each single character
            return type(a) is str and a == b and len(a) < 2
        return type(a) in (int, float) and a == b

    def _cons(self, arguments):
        first, rest = arguments
        if self._quirks and isinstance(rest, str):
            rest = values.make_list(list(rest))
        if not values.is_list(rest):
            raise self._type_error('cons', 'a list as its second part', rest)
        if rest.size >= self._limits.max_nodes:
            raise errors.LispLimitError(
                f'a list must have at most {self._limits.max_nodes} elements; cons would add one'
            )
        return values.Pair(first, values.NIL if values.is_nil(rest) else rest)

    def _car(self, arguments):
        value = arguments[0]
        if type(value) is values.Pair:
            return value.car
        if self._quirks and isinstance(value, str) and value:
            return value[0]
        raise self._type_error('car', 'a list with elements', value)

    def _cdr(self, arguments):
        value = arguments[0]
        if type(value) is values.Pair:
            rest = value.cdr
            if not self._quirks:
                return rest
            # A new list there, with the same elements.
            return values.Nil() if rest is values.NIL else values.Pair(rest.car, rest.cdr)
        if values.is_nil(value):
            return values.Nil() if self._quirks else value
        if self._quirks and isinstance(value, str):
            return value[1:]
        raise self._type_error('cdr', 'a list', value)

    def _list(self, arguments):
        return values.make_list(arguments) if arguments or not self._quirks else values.Nil()

    def _length(self, arguments):
        value = arguments[0]
        if values.is_list(value):
            return value.size
        if isinstance(value, str) and (self._quirks or not isinstance(value, values.Symbol)):
            return len(value)
        raise self._type_error('length', 'a list or string', value)

    def _type_error(self, name, wanted, value):
        kind = values.type_name(value)
        if self._quirks:
            kind = host.host_type(value)
            texts = {
                'cons': f'{kind!r} object is not iterable',
                'length': f'object of type {kind!r} has no len()',
            }
            text = texts.get(name, f'{kind!r} object is not subscriptable')
            if values.is_list(value) or isinstance(value, str):
                text = f'{"list" if values.is_list(value) else "string"} index out of range'
        else:
            text = f'{name} takes {wanted}, got {kind} {values.to_source(value, 60)}'
        return errors.LispError(text, 'type')


class _Control:
    """Procedures that print, evaluate, load, or steer the machine."""

    def __init__(self, reader, simplify, quirks, allow_use, allow_load):
        self._reader = reader
        self._simplify = simplify
        self._quirks = quirks
        self._allow_use = allow_use
        self._allow_load = allow_load

    def table(self):
        return [
            ('display', self._display, 0, None),
            ('newline', self._newline, 0, 0),
            ('load', self._load, 1, 1),
            ('use', self._use, 1, 1),
            ('simplify', self._simplified, 1, 1),
            ('eval', self._eval, 1, 1),
            ('eval-simplified', self._eval_simplified, 1, 1),
            ('eval-with-limits', self._eval_with_limits, 4, 4),
            ('trace-on', self._trace_on, 0, 0),
            ('trace-off', self._trace_off, 0, 0),
        ]

    def _display(self, machine, expr, arguments):
        for value in arguments:
            machine.write(machine.text(value))

    def _newline(self, machine, expr, arguments):
        machine.write('\n')

    def _load(self, machine, expr, arguments):
        path = arguments[0]
        if not isinstance(path, str):
            raise self._no_path(path)
        if not self._allow_load:
            raise errors.LispError(
                f'load must be enabled to read {values.to_source(path, 60)}: it reads any file '
                f'of this user. Start with --allow-load (allow_load=True) if you trust the program',
                'host',
            )
        if machine.load_depth >= machine.limits.max_load_depth:
            raise errors.LispLimitError(
                f'files must load each other at most {machine.limits.max_load_depth} deep'
            )
        forms_read = self._reader.read_all(read_file(path))
        machine.load_depth += 1
        machine.push(_LoadFrame(expr))
        return forms.evaluate_body(machine, expr, values.make_list(forms_read), machine.globals)

    def _no_path(self, value):
        if not self._quirks:
            return errors.LispError(f'load takes a path, got {values.type_name(value)}', 'type')
        if not isinstance(value, int):
            return errors.LispError(
                f'expected str, bytes or os.PathLike object, not {host.host_type(value)}', 'type'
            )
        # The host takes a number for an open file, and closes it afterwards. Not here.
        if value < 0:
            return errors.LispError('negative file descriptor', 'type')
        return errors.LispError('[Errno 9] Bad file descriptor', 'io')

    def _use(self, machine, expr, arguments):
        name = arguments[0]
        if not isinstance(name, str):
            text = f"use takes a module's name, got {values.type_name(name)}"
            if self._quirks:
                text = f"{host.host_type(name)!r} object has no attribute 'startswith'"
            raise errors.LispError(text, 'type')
        if not self._allow_use:
            raise errors.LispError(
                f'use must be enabled to import {values.to_source(name, 60)}: it runs any code '
                f'of the host. Start with --allow-use (allow_use=True) if you trust the program',
                'host',
            )
        try:
            module = importlib.import_module(str(name))
            register = getattr(module, 'lisp_register', None) or getattr(module, 'register', None)
            if register is not None:
                register(machine.globals)
            else:
                machine.globals[str(name)] = module
        except errors.LispError:
            raise
        except Exception as error:  # a module may fail in any way while it is imported
            raise errors.LispError(str(error), 'host') from error
        return name

    def _simplified(self, machine, expr, arguments):
        return self._simplify(arguments[0])

    def _eval(self, machine, expr, arguments):
        return machine.evaluate_tail(expr, arguments[0], machine.globals)

    def _eval_simplified(self, machine, expr, arguments):
        return machine.evaluate_tail(expr, self._simplify(arguments[0]), machine.globals)

    def _eval_with_limits(self, machine, expr, arguments):
        target, steps, milliseconds, simplify = arguments
        steps = self._bound(steps)
        milliseconds = self._bound(milliseconds)
        # The original asks the host whether `simplify?` is true, for which 0, "" and () are not.
        empty = values.is_nil(simplify) or (not values.is_list(simplify) and not simplify)
        if not empty if self._quirks else forms.is_true(simplify):
            target = self._simplify(target)
        machine.enter_limits(steps, None if milliseconds is None else milliseconds / 1000)
        return machine.evaluate_next(target, machine.globals)

    def _bound(self, value: Any) -> float | None:
        """Returns a limit, or None for any value that is not a number.

        A boolean counts as the number 0 or 1 in the original, so #f fails at once there.
        """
        if not isinstance(value, (int, float)) or (isinstance(value, bool) and not self._quirks):
            return None
        if self._quirks and not math.isfinite(value):
            what = 'NaN' if math.isnan(value) else 'infinity'
            raise errors.LispError(f'cannot convert float {what} to integer', 'type')
        return min(value, 1e15)

    def _trace_on(self, machine, expr, arguments):
        machine.tracing = True

    def _trace_off(self, machine, expr, arguments):
        machine.tracing = False


class _LoadFrame(forms.PassFrame):
    """The end of a file under evaluation."""

    __slots__ = ()

    def resume(self, machine, value):
        machine.load_depth -= 1
        return value


def read_file(path: str) -> str:
    """Returns the text of a UTF-8 file.

    Raises:
      LispError: of kind io, when the file is missing, unreadable, not UTF-8, larger than
        ``MAX_FILE_BYTES``, or no plain file (reading a device or a pipe might never end).
    """
    try:
        facts = os.stat(path)
        if stat.S_ISDIR(facts.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_FILE_BYTES:
            raise errors.LispError(
                f'{path!r} must be a plain file of at most {MAX_FILE_BYTES} bytes', 'io'
            )
        with open(path, encoding='utf-8') as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise errors.LispError(str(error), 'io') from error
