"""Values of the language: symbols, lists, procedures; printing and equality.

Lists are chains of immutable pairs that share their tails, so ``cons`` and ``cdr`` cost the
same for every length and a program's memory grows with its steps only. Nothing here recurses:
a list nested a million deep prints, compares and is freed like a flat one.
"""

import math
import types
from typing import Any

from hrm_jax.lisp import errors

# str() of an int refuses more digits than this by default; larger ones are printed in parts.
_DIGITS_AT_ONCE = 4000


class Symbol(str):
    """A name. The default reader gives the same object for the same text."""

    __slots__ = ()


class Nil:
    """The empty list. Chains end in ``NIL``; with ``quirks`` a value may be another instance.

    There every list has an identity of its own, which ``eq?`` compares.
    """

    __slots__ = ()
    size = 0

    def __iter__(self):
        return iter(())

    def __repr__(self):
        return '()'


NIL = Nil()


class Pair:
    """A non-empty list: first element, the list of the others, and its length."""

    __slots__ = ('car', 'cdr', 'size')

    def __init__(self, car: Any, cdr: 'Pair | Nil'):
        self.car = car
        self.cdr = cdr
        self.size = cdr.size + 1

    def __iter__(self):
        node = self
        while node is not NIL:
            yield node.car
            node = node.cdr


def is_list(value: Any) -> bool:
    return type(value) is Pair or type(value) is Nil


def is_nil(value: Any) -> bool:
    return type(value) is Nil


def make_list(items) -> Pair | Nil:
    """Returns the Lisp list of a Python sequence."""
    result = NIL
    for item in reversed(items):
        result = Pair(item, result)
    return result


class Environment:
    """A scope: names with their values, and the enclosing scope.

    Works as a mapping for host modules that register procedures: ``env['name'] = function``.
    """

    __slots__ = ('names', 'parent')

    def __init__(self, parent: 'Environment | None' = None):
        self.names: dict[str, Any] = {}
        self.parent = parent

    def scope_of(self, name: str) -> 'Environment | None':
        scope = self
        while scope is not None:
            if name in scope.names:
                return scope
            scope = scope.parent
        return None

    def __setitem__(self, name: str, value: Any) -> None:
        self.names[name] = value

    def __getitem__(self, name: str) -> Any:
        scope = self.scope_of(name)
        if scope is None:
            raise errors.LispError(f'unbound symbol: {name}', 'unbound')
        return scope.names[name]

    def __contains__(self, name: str) -> bool:
        return self.scope_of(name) is not None


class Procedure:
    """A lambda with the scope in which it was made."""

    __slots__ = ('body', 'name', 'params', 'scope')

    def __init__(self, params: tuple[str, ...], body: Pair | Nil, scope: Environment, name: str):
        self.params = params
        self.body = body
        self.scope = scope
        self.name = name


class Builtin:
    """A procedure written in Python.

    Attributes:
      function: called with the arguments; with (machine, call expression, arguments) when
        ``control`` is set, and then it may ask the machine to evaluate something.
      most: largest number of arguments, or None for any.
    """

    __slots__ = ('control', 'function', 'least', 'most', 'name')

    def __init__(self, name, function, least=0, most=None, control=False):
        self.name = name
        self.function = function
        self.least = least
        self.most = most
        self.control = control


def is_number(value: Any) -> bool:
    """Says whether ``number?`` holds: booleans are not numbers."""
    return isinstance(value, (int, float, complex)) and not isinstance(value, bool)


def type_name(value: Any) -> str:
    """Returns the word that error messages use for the kind of a value."""
    if value is None:
        return 'no value'
    if is_list(value):
        return 'list'
    if isinstance(value, (Procedure, Builtin)) or callable(value):
        return 'procedure'
    if isinstance(value, Symbol):
        return 'symbol'
    names = {bool: 'boolean', int: 'integer', float: 'float', str: 'string'}
    return names.get(type(value), type(value).__name__)


def _int_text(number: int) -> str:
    if number.bit_length() < 3 * _DIGITS_AT_ONCE:
        return str(number)
    sign, number = ('-', -number) if number < 0 else ('', number)
    base, parts = 10**_DIGITS_AT_ONCE, []
    while number >= base:
        number, low = divmod(number, base)
        parts.append(str(low).rjust(_DIGITS_AT_ONCE, '0'))
    return sign + str(number) + ''.join(reversed(parts))


def atom_text(value: Any, quirks: bool) -> str:
    """Returns the printed form of anything but a list."""
    if value is True or value is False:
        return '#t' if value else '#f'
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return _int_text(value)
    if quirks and isinstance(value, Builtin):
        # What the host prints for the original's builtins.
        return f'<function standard_env.<locals>.<lambda> at {id(value):#x}>'
    if isinstance(value, (Procedure, Builtin)):
        return f'#<procedure {value.name}>'
    if value is None and not quirks:
        return '#<no value>'
    if isinstance(value, types.ModuleType) and not quirks:
        return f'#<module {value.__name__}>'
    return str(value)


def to_text(value: Any, quirks: bool = False, max_chars: float = math.inf) -> str:
    """Returns the printed form: strings without quotes, lists in parentheses.

    Raises:
      LispLimitError: the text is longer than ``max_chars`` (lists may share parts, so a few
        steps can make a value whose text does not fit into any memory).
    """
    pieces, length = [], 0
    stack = [value]  # what remains to be printed; a one-element tuple is text as it stands
    while stack:
        item = stack.pop()
        if type(item) is tuple:
            text = item[0]
        elif is_list(item):
            text = '('
            rest = [(')',)]
            if item.size > max_chars:
                length = math.inf
            else:
                for index, part in enumerate(item):
                    if index:
                        rest.append((' ',))
                    rest.append(part)
                rest[1:] = reversed(rest[1:])
                stack.extend(rest)
        else:
            text = atom_text(item, quirks)
        length += len(text)
        if length > max_chars:
            raise errors.LispLimitError(
                f'a printed value must have at most {max_chars:.0f} characters; this one is longer'
            )
        pieces.append(text)
    return ''.join(pieces)


def to_source(value: Any, max_chars: int = 200) -> str:
    """Returns a form for error stacks and traces, truncated after ``max_chars`` characters."""
    pieces, length = [], 0
    stack = [value]
    while stack and length <= max_chars:
        item = stack.pop()
        if type(item) is tuple:
            text = item[0]
        elif is_list(item):
            text = '('
            shown, parts = max_chars, []
            for part in item:
                shown -= 1
                if shown < 0:
                    break
                parts += [(' ',), part] if parts else [part]
            stack.append((')',))
            stack.extend(reversed(parts))
        else:
            text = atom_text(item, quirks=False)
        length += len(text)
        pieces.append(text)
    text = ''.join(pieces)
    return text if len(text) <= max_chars else text[: max_chars - 3] + '...'


def _same_atom(a: Any, b: Any, quirks: bool) -> bool:
    if quirks:
        return a is b or bool(a == b)
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, Symbol) is not isinstance(b, Symbol):
        return False
    return a is b or bool(a == b)


def is_equal(a: Any, b: Any, quirks: bool = False, max_nodes: float = math.inf) -> bool:
    """Says whether two values have the same structure.

    With ``quirks`` as the host compares: #t equals 1 and a symbol equals a string.

    Raises:
      LispLimitError: more than ``max_nodes`` parts had to be compared.
    """
    stack, nodes = [(a, b)], 0
    while stack:
        a, b = stack.pop()
        nodes += 1
        if nodes > max_nodes:
            raise errors.LispLimitError(
                f'values to compare must have at most {max_nodes:.0f} parts; these have more'
            )
        if (a is b and is_list(a)) or (type(a) is Nil and type(b) is Nil):
            continue
        if type(a) is Pair and type(b) is Pair:
            if a.size != b.size:
                return False
            stack.append((a.cdr, b.cdr))
            stack.append((a.car, b.car))
        elif is_list(a) or is_list(b) or not _same_atom(a, b, quirks):
            return False
    return True
