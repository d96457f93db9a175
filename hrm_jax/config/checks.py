"""The checks that the configuration dataclasses are made of."""

import dataclasses
import difflib
import math
import typing
from typing import Any

from hrm_jax.errors import ConfigError

_TOO_LARGE = 2**31  # what counters on a device cannot hold
_LARGEST_FLOAT = 3.4e38


def choices(hint: Any) -> tuple[str, ...]:
    """Values that a type allows: those of a ``Literal``, alone or in a tuple; else empty."""
    if typing.get_origin(hint) is tuple:
        hint = typing.get_args(hint)[0]
    return typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()


def check_fields(section: Any, prefix: str) -> None:
    """Checks what every field must be: one of its choices, a finite number, one that fits in int32.

    Args:
      section: dataclass instance.
      prefix: of the fields' names in messages, with its dot.

    Raises:
      ConfigError: a value is none of the choices (the nearest one is named), or no such number.
    """
    hints = typing.get_type_hints(type(section))
    for field in dataclasses.fields(section):
        allowed, name = choices(hints[field.name]), f'{prefix}{field.name}'
        value = getattr(section, field.name)
        for one in value if isinstance(value, tuple) else (value,):
            if allowed:
                require_choice(name, one, allowed)
            elif isinstance(one, float):
                ConfigError.require(
                    math.isfinite(one), f'{name} must be a finite number; got {one}.'
                )
                ConfigError.require(
                    abs(one) < _LARGEST_FLOAT,
                    f'{name} must be a number that float32 can hold; got {one}.',
                )
            elif isinstance(one, int):
                ConfigError.require(
                    abs(one) < _TOO_LARGE, f'{name} must be below {_TOO_LARGE:,}; got {one:,}.'
                )


def require_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raises ConfigError unless ``value`` is allowed; the nearest choice is named."""
    hint = difflib.get_close_matches(str(value), allowed, n=1)
    suggestion = f' Did you mean {hint[0]!r}?' if hint else ''
    ConfigError.require(
        value in allowed,
        f'{name} must be one of {", ".join(allowed)}; got {value!r}.{suggestion}',
    )


def require_positive(**values: float) -> None:
    """Raises ConfigError unless all values are above 0; ``**{'section.field': value}``."""
    for name, value in values.items():
        ConfigError.require(value > 0, f'{name} must be greater than 0; got {value}.')


def require_not_negative(**values: float) -> None:
    """Raises ConfigError unless all values are 0 or above; ``**{'section.field': value}``."""
    for name, value in values.items():
        ConfigError.require(value >= 0, f'{name} must not be negative; got {value}.')
