"""The checks that configuration dataclasses are made of, and the error that they raise."""

import difflib


class ConfigError(ValueError):
    """A setting is unknown, of the wrong type, or contradicts another one."""


def require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    hint = difflib.get_close_matches(str(value), choices, n=1)
    suggestion = f' Did you mean {hint[0]!r}?' if hint else ''
    require(
        value in choices,
        f'{name} must be one of {", ".join(choices)}; got {value!r}.{suggestion}',
    )


def require_positive(**values: float) -> None:
    for name, value in values.items():
        require(value > 0, f'{name} must be greater than 0; got {value}.')


def require_not_negative(**values: float) -> None:
    for name, value in values.items():
        require(value >= 0, f'{name} must not be negative; got {value}.')
