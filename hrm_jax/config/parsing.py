"""Parsing of nested mappings (a ConfigDict, flags, parsed JSON) into the frozen dataclasses."""

from collections.abc import Mapping
import dataclasses
import difflib
import types
import typing
from typing import Any

from hrm_jax.config import checks
from hrm_jax.errors import ConfigError


def build(cls: type, values: Mapping[str, Any], path: str = '') -> Any:
    """Builds a configuration dataclass, sections included.

    Args:
      cls: the dataclass.
      values: field -> value; sections are mappings. Missing fields keep their defaults.
      path: of the section, with its dot, for messages.

    Raises:
      ConfigError: an unknown key (the nearest known one is named), a value of another type than
        the field's, or settings that contradict each other.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}
    hints = typing.get_type_hints(cls)
    kwargs = {}
    for name, value in values.items():
        full = f'{path}{name}'
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f'Did you mean {path}{near[0]}?' if near else f'Known here: {", ".join(fields)}.'
            raise ConfigError(f'unknown config key {full}. {hint}')
        kwargs[name] = _coerce(hints[name], value, full)
    return cls(**kwargs)


def _coerce(hint: type, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if dataclasses.is_dataclass(type(value)):
            value = dataclasses.asdict(value)
        ConfigError.require(
            hasattr(value, 'items'), f'config key {path} must be a section; got {value!r}.'
        )
        return build(hint, value, f'{path}.')
    if hint is float and type(value) is int:
        return float(value)
    origin = typing.get_origin(hint)
    if origin is tuple:
        kind = str if checks.choices(hint) else typing.get_args(hint)[0]
        if kind is str and isinstance(value, list | tuple):  # --config.x=a,b is one text
            value = [
                part.strip() if isinstance(part, str) else part
                for one in value
                for part in (one.split(',') if isinstance(one, str) else [one])
            ]
        ConfigError.require(
            isinstance(value, list | tuple) and all(type(one) is kind for one in value),
            f'config key {path} must be a list of {kind.__name__}; got {value!r}.',
        )
        return tuple(value)
    if checks.choices(hint):
        hint = str  # which one is checked by the section itself
    allowed = typing.get_args(hint) if origin in (types.UnionType, typing.Union) else (hint,)
    same = type(value) in allowed  # bool is an int, but no one means lr=True
    ConfigError.require(
        same,
        f'config key {path} must be {" or ".join(t.__name__ for t in allowed)}; got '
        f'{value!r} ({type(value).__name__}).',
    )
    return value
