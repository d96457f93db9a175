"""Settings of the builders: each one is a field of a frozen dataclass and is stated once.

Its type, default and help text give the flag of the command line (``add_flags``), the keyword
argument and the docstring of the builder's function (``with_settings``), and the options that
the manifest records (``WriterOptions.recorded``).
"""

import argparse
from collections.abc import Callable, Sequence
import dataclasses
import functools
import inspect
import textwrap
import typing
from typing import Any

from hrm_jax.errors import BuildError

_WIDTH = 94  # of the lines of the docstrings made here, indented once where they are shown


def option(default: Any = dataclasses.MISSING, *, help: str, unset: str = '', off: str = '') -> Any:
    """A setting: one field of a class of ``settings``.

    Args:
      default: its default; without one the setting is required.
      help: its meaning, in words that fit the command line and Python.
      unset: meaning of the default None, or of an empty one.
      off: flag that turns the setting off, for a setting that is on by default.

    Raises:
      ValueError: ``unset`` or ``off`` is missing for a default that needs it.
    """
    if default in (None, '', ()) and not unset:
        raise ValueError('an option without a value by default must have `unset`, its meaning')
    if default is True and not off:
        raise ValueError('an option that is on by default must have `off`, the flag against it')
    return dataclasses.field(default=default, metadata={'help': help, 'unset': unset, 'off': off})


def _described(cls: type) -> list[str]:
    """Returns the lines of a docstring for the fields of a class of settings."""
    lines = []
    for field in dataclasses.fields(cls):
        nothing = 'None' if field.default is None else 'empty'
        unset = f'; {nothing}: {field.metadata["unset"]}' if field.metadata['unset'] else ''
        text = f'{field.name}: {field.metadata["help"]}{unset}.'
        lines += textwrap.wrap(text, _WIDTH, initial_indent='  ', subsequent_indent='    ')
    return lines


@typing.dataclass_transform(
    frozen_default=True, kw_only_default=True, field_specifiers=(option, dataclasses.field)
)
def settings(cls: type) -> type:
    """Makes a class with fields of ``option`` a frozen dataclass whose docstring lists them."""
    made = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    made.__doc__ = '\n'.join([inspect.cleandoc(cls.__doc__), '', 'Attributes:', *_described(made)])
    return made


@settings
class WriterOptions:
    """Settings of every command that writes a folder."""

    seed: int = option(0, help='seed of everything random')
    overwrite: bool = option(False, help='replace an existing data set')
    show: bool = option(True, help='show progress and a summary', off='--quiet')

    def __post_init__(self):
        BuildError.require(self.seed >= 0, f'--seed must not be negative; got {self.seed}.')
        for name, hint in typing.get_type_hints(type(self)).items():
            value = getattr(self, name)
            if typing.get_origin(hint) is typing.Literal:
                choices = typing.get_args(hint)
                BuildError.require(
                    value in choices,
                    f'{flag_of(name)} must be one of {", ".join(map(str, choices))}; '
                    f'got {value!r}.',
                )

    def recorded(self) -> dict[str, Any]:
        """Returns the options of the manifest: all settings but those of every command."""
        common = {field.name for field in dataclasses.fields(WriterOptions)}
        values = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in common
        }
        # As JSON gives them back.
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def flag_of(name: str) -> str:
    """Returns the flag of a field, ``--num-aug`` of ``num_aug``."""
    return f'--{name.replace("_", "-")}'


def add_flags(parser: argparse.ArgumentParser, cls: type) -> None:
    """Adds one flag for each field of a class of settings; ``dest`` is the field's name."""
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        shown = f'{_help(field)} ({_default(field)})'.replace('%', '%%')
        if hints[field.name] is bool:
            off = field.metadata['off']
            parser.add_argument(
                off or flag_of(field.name), dest=field.name, default=field.default, help=shown,
                action='store_false' if off else 'store_true',
            )  # fmt: skip
            continue
        required = field.default is dataclasses.MISSING
        parser.add_argument(
            flag_of(field.name), help=shown, required=required,
            default=None if required else field.default, **_converted(hints[field.name]),
        )  # fmt: skip


def _converted(hint: Any) -> dict[str, Any]:
    """Returns argparse's arguments for values of a type."""
    arguments = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    if typing.get_origin(hint) is typing.Literal:
        return {'type': type(arguments[0]), 'choices': arguments}
    if typing.get_origin(hint) is Sequence:
        return {'type': arguments[0], 'nargs': '+'}
    kind = arguments[0] if arguments else hint
    metavars = {int: {'metavar': 'N'}, float: {'metavar': 'X'}}
    return {'type': kind, **metavars.get(kind, {})}


def _help(field: dataclasses.Field) -> str:
    return f'do not {field.metadata["help"]}' if field.metadata['off'] else field.metadata['help']


def _default(field: dataclasses.Field) -> str:
    """Returns the note on the value without the flag."""
    if field.default is dataclasses.MISSING:
        return 'required'
    if field.default in (None, '', ()):
        return f'default: {field.metadata["unset"]}'
    if isinstance(field.default, bool):
        return 'default: off'
    if isinstance(field.default, tuple):
        return f'default: {" ".join(field.default)}'
    return f'default: {field.default}'


def with_settings(cls: type) -> Callable[[Callable], Callable]:
    """Decorator of a function of ``options: cls``, which then takes the fields as keywords.

    The signature and the docstring show the fields in the place of ``options``.
    """

    def decorate(function: Callable) -> Callable:
        inner = inspect.signature(function)
        others = [each for name, each in inner.parameters.items() if name != 'options']
        required = {dataclasses.MISSING: inspect.Parameter.empty}
        keywords = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=required.get(field.default, field.default),
                annotation=field.type,
            )
            for field in dataclasses.fields(cls)
        ]
        signature = inner.replace(parameters=[*others, *keywords])

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            values = signature.bind(*args, **kwargs).arguments
            rest = {each.name: values.pop(each.name) for each in others}
            return function(**rest, options=cls(**values))

        call.__signature__ = signature
        if function.__doc__:  # python -OO has none
            lines = inspect.getdoc(function).split('\n')
            (at,) = [k for k, line in enumerate(lines) if line.startswith('  options: ')]
            call.__doc__ = '\n'.join([*lines[:at], *_described(cls), *lines[at + 1 :]])
        return call

    return decorate
