"""Interpolations in the originals' YAML files: ``${.hidden_size}``, as Hydra (OmegaConf) has them.

``${a.b}`` is looked up from the root of the file, ``${.x}`` beside the setting, ``${..x}`` one
section above. A setting that is nothing but an interpolation takes the type of what it names.
"""

from collections.abc import Mapping
import re
from typing import Any

from hrm_jax.errors import CheckpointError

_WHOLE = re.compile(r'\$\{([^${}]*)\}')
_LONGEST_CHAIN = 20  # interpolations that lead to each other


def resolved(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Returns the mapping with all interpolations replaced by what they name.

    Args:
      values: parsed YAML.
      source: name of the file, for messages.

    Raises:
      CheckpointError: one leads nowhere, to itself, or asks for something outside of the file.
    """
    return _walk(values, (), values, source)


def _walk(node: Any, path: tuple[str, ...], root: Mapping[str, Any], source: str) -> Any:
    if isinstance(node, Mapping):
        return {key: _walk(value, (*path, str(key)), root, source) for key, value in node.items()}
    if isinstance(node, list):
        return [_walk(value, (*path, str(k)), root, source) for k, value in enumerate(node)]
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
