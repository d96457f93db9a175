"""Values as the host has them: conversion, and the forms that the original's messages show."""

from typing import Any

from hrm_jax.lisp.values import Builtin, atom_text, is_list, make_list


def host_type(value: Any) -> str:
    """Returns the host's name for the type of a value (the original's error texts show it)."""
    if is_list(value):
        return 'list'
    if isinstance(value, Builtin):
        return 'builtin_function_or_method' if value.name in ('sqrt', 'pow') else 'function'
    return type(value).__name__


def host_repr(value: Any) -> str:
    """Returns ``str`` of a value as the original holds it (its error texts show these)."""
    if isinstance(value, Builtin):
        return atom_text(value, quirks=True)
    if not is_list(value):
        return str(value)
    pieces, stack = [], [value]
    while stack:
        item = stack.pop()
        if type(item) is tuple:
            pieces.append(item[0])
        elif is_list(item):
            pieces.append('[')
            parts = []
            for part in item:
                parts += [(', ',), part] if parts else [part]
            stack.append((']',))
            stack.extend(reversed(parts))
        elif isinstance(item, str):
            pieces.append(repr(str(item)))
        else:
            pieces.append(host_repr(item) if isinstance(item, Builtin) else repr(item))
    return ''.join(pieces)


def from_host(value: Any) -> Any:
    """Turns nested Python lists and tuples into Lisp lists."""
    if not isinstance(value, (list, tuple)):
        return value
    done: list[Any] = []
    stack: list[Any] = [(value, iter(value), [])]
    while stack:
        _, items, built = stack[-1]
        for item in items:
            if isinstance(item, (list, tuple)):
                stack.append((item, iter(item), []))
                break
            built.append(item)
        else:
            stack.pop()
            (stack[-1][2] if stack else done).append(make_list(built))
    return done[0]


def to_host(value: Any) -> Any:
    """Turns Lisp lists into nested Python lists."""
    if not is_list(value):
        return value
    result: list[Any] = []
    stack = [(iter(value), result)]
    while stack:
        items, built = stack[-1]
        for item in items:
            if is_list(item):
                inner: list[Any] = []
                built.append(inner)
                stack.append((iter(item), inner))
                break
            built.append(item)
        else:
            stack.pop()
    return result
