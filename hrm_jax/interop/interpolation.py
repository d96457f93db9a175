"""Interpolations in the originals' YAML files: ``${.hidden_size}``, as Hydra (OmegaConf) has them.

``${a.b}`` is looked up from the root of the file, ``${.x}`` beside the setting, ``${..x}`` one
section above. A setting that is nothing but an interpolation takes the type of what it names.
"""

from collections.abc import Iterator, Mapping
import itertools
import re
from typing import Any

from hrm_jax.errors import CheckpointError

_WHOLE = re.compile(r'\$\{([^${}]*)\}')
_LONGEST_CHAIN = 20  # interpolations that lead to each other
_LONGEST_TEXT = 10_000  # characters; texts that repeat each other double at every line
_DEEPEST = 100  # levels; an alias may contain itself
_MOST_VALUES = 100_000  # of a file; its aliases (&a, *a) multiply as well


def resolved(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns the mapping with all interpolations replaced by what they name.

    Args:
      values: parsed YAML.
      source: name of the file, for messages.

    Raises:
      CheckpointError: one leads nowhere, to itself, or asks for something outside of the file.
    """
    return _walk(values, (), values, source, itertools.count())


def _walk(
    node: Any, path: tuple[str, ...], root: Mapping[str, Any], source: str, number: Iterator[int]
) -> Any:
    if next(number) >= _MOST_VALUES:
        raise CheckpointError(f'{source} must have at most {_MOST_VALUES:,} values.')
    if len(path) > _DEEPEST:
        raise CheckpointError(f'{source}: its values must be nested at most {_DEEPEST} deep.')
    inner = (root, source, number)
    if isinstance(node, Mapping):
        return {key: _walk(value, (*path, str(key)), *inner) for key, value in node.items()}
    if isinstance(node, list):
        return [_walk(value, (*path, str(k)), *inner) for k, value in enumerate(node)]
    if isinstance(node, str) and '${' in node:
        return _value(node, path, root, source, 0)
    return node


def _value(
    text: str, path: tuple[str, ...], root: Mapping[str, Any], source: str, depth: int
) -> Any:
    where = f'{source}: {".".join(path)}={text!r}'
    if depth > _LONGEST_CHAIN:
        raise CheckpointError(f'{where} leads to itself.')
    whole = _WHOLE.fullmatch(text)
    if whole:
        return _look_up(whole[1].strip(), path, root, source, where, depth)
    joined = _WHOLE.sub(
        lambda m: str(_look_up(m[1].strip(), path, root, source, where, depth)), text
    )
    if len(joined) > _LONGEST_TEXT:
        raise CheckpointError(f'{where} must be at most {_LONGEST_TEXT:,} characters.')
    if '${' in joined:
        raise CheckpointError(f'{where} is not an interpolation that can be read.')
    return joined


def _look_up(name, path, root, source, where, depth) -> Any:
    if ':' in name:
        raise CheckpointError(
            f'{where} asks for something outside of the file. Write its value there.'
        )
    dots = len(name) - len(name.lstrip('.'))
    if dots >= len(path) + 1:
        raise CheckpointError(f'{where} leads outside of the file.')
    base = path[: len(path) - dots] if dots else ()
    target = (*base, *(part for part in re.split(r'[.\[\]]+', name[dots:]) if part))
    node: Any = root
    for part in target:
        if isinstance(node, Mapping) and part in node:
            node = node[part]
        elif isinstance(node, list) and part.isdecimal() and int(part) < len(node):
            node = node[int(part)]
        else:
            raise CheckpointError(f'{where}: the file has no {".".join(target)}.')
    if isinstance(node, str) and '${' in node:
        return _value(node, target, root, source, depth + 1)
    return node
