"""Checkpoints on disk: which file or folder it is, of which format, and the tensors in it."""

import dataclasses
import os
import re

from hrm_jax import files
from hrm_jax.checkpoint import layout, places
from hrm_jax.errors import CheckpointError
from hrm_jax.interop import (
    hub,
    original_config,
    pretrained,
    safetensors_io,
    state_dict,
    torch_reader,
    transformers_config,
)

WEIGHTS_NAME = 'model.safetensors'
# Weights of a folder in transformers' style, best first: one file, or an index of several.
_WEIGHTS = (
    WEIGHTS_NAME, f'{WEIGHTS_NAME}.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json',
)  # fmt: skip
_STEP = re.compile(r'(?:^|_)step_(\d+)')
TORCH_SUFFIXES = ('.pt', '.pth', '.bin', '.ckpt')


@dataclasses.dataclass(frozen=True)
class Source:
    """A checkpoint that was found.

    Attributes:
      format: one of ``FORMATS``.
      path: the file of the tensors, or the folder of an orbax checkpoint.
      config: the configuration file that belongs to it, or ''.
    """

    format: str
    path: str
    config: str


def find(
    path_or_hub_id: str | os.PathLike, config: str = '', revision: str | None = None
) -> Source:
    """Finds out what is stored under a path or hub id.

    Args:
      path_or_hub_id: a file, a folder, or ``owner/name`` on the hub.
      config: configuration file to use in place of the one beside the weights.
      revision: branch, tag or commit on the hub.

    Raises:
      CheckpointError: there is nothing, or no checkpoint.
    """
    if places.is_remote(path_or_hub_id):  # as_path names storage that cannot be read
        path = str(layout.resolve(os.fspath(path_or_hub_id), places.as_path(path_or_hub_id)))
        return Source('orbax', path, '')
    path = pretrained.resolved(os.fspath(path_or_hub_id))
    path = hub.local_path(files.expanded(path), revision)
    config = files.expanded(config)
    folder = path if os.path.isdir(path) else os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(path):
        with open(path, 'rb') as file:
            is_torch = file.read(4) == b'PK\x03\x04'
        kind = 'torch' if is_torch or not path.endswith('.safetensors') else 'safetensors'
        return Source(kind, path, config or _config_beside(folder))
    # Hidden files are those of other programs: macOS leaves ._NAME beside NAME.
    names = sorted(name for name in os.listdir(path) if not name.startswith('.'))
    for chosen in (name for name in _WEIGHTS if name in names):
        beside = _config_beside(folder)
        kind = 'safetensors' if WEIGHTS_NAME in chosen else 'torch'
        kind = 'huggingface' if transformers_config.FILE_NAME in names else kind
        return Source(kind, os.path.join(path, chosen), config or beside)
    if {layout.FOLDER, layout.POINTER} & set(names) or {'params', 'meta'} <= set(names):
        if config:
            raise CheckpointError(
                f'{path} is a checkpoint of ours and carries its configuration; leave out {config}.'
            )
        return Source('orbax', path, '')
    plain = [name for name in names if os.path.isfile(os.path.join(path, name))]
    numbered = ((n, step_of(n)) for n in plain if 'all_preds' not in n)
    steps = {n: step for n, step in numbered if step is not None}
    others = [n for n in plain if n.endswith(TORCH_SUFFIXES) or n.startswith('checkpoint')]
    tensors = [n for n in plain if n.endswith('.safetensors')]
    if 'checkpoint' in others:
        others = ['checkpoint']
    if steps or len(others) == 1:
        chosen = max(steps, key=lambda name: steps[name]) if steps else others[0]
        return Source('torch', os.path.join(path, chosen), config or _config_beside(folder))
    if len(tensors) == 1:
        config = config or _config_beside(folder)
        return Source('safetensors', os.path.join(path, tensors[0]), config)
    raise CheckpointError(
        f'{path} has no checkpoint: expected step_N, model.safetensors or a folder '
        f'checkpoints; it has {", ".join(names[:8]) or "nothing"}. Name the file itself.'
    )


def step_of(path: str) -> int | None:
    """Returns N of a file named ``step_N``, otherwise None."""
    match = _STEP.search(os.path.basename(path))
    return int(match[1]) if match else None


def _config_beside(folder: str) -> str:
    for name in (original_config.FILE_NAME, transformers_config.FILE_NAME):
        if os.path.isfile(os.path.join(folder, name)):
            return os.path.join(folder, name)
    return ''


def read_state(path: str, member: str = '') -> tuple[dict, dict[str, str], int | None]:
    """Reads a torch or safetensors file, or the files that an index names.

    Args:
      path: the file.
      member: keys that lead to the state dict in a torch file with several.

    Returns:
      The tensors, the texts that a safetensors file has beside them, and the train step that a
      torch file has beside them, or None.
    """
    if path.endswith('.index.json'):
        return _read_shards(path), {}, None
    if torch_reader.is_torch_file(path) or not path.endswith('.safetensors'):
        found = torch_reader.read_state_dict(
            path, is_wanted=state_dict.is_of_this_family, member=member
        )
        return found.tensors, {}, found.step
    return *safetensors_io.read_safetensors(path), None


def _read_shards(path: str) -> dict:
    """The tensors of all files that an index of transformers names, each in the file it names."""
    files_of = files.read_json(path, CheckpointError, dict).get('weight_map')
    ok = isinstance(files_of, dict) and files_of
    if not ok or not all(isinstance(x, str) for x in files_of.values()):
        raise CheckpointError(f'{path}: weight_map must be an object of names and files.')
    state: dict = {}
    for shard in sorted(set(files_of.values())):
        file = os.path.join(os.path.dirname(path), os.path.basename(shard))
        if not os.path.isfile(file):
            raise CheckpointError(f'{path} names the file {shard}, which is missing.')
        tensors = read_state(file)[0]
        wanted = {name for name, place in files_of.items() if place == shard}
        if lost := sorted(wanted - tensors.keys()):
            raise CheckpointError(f'{file} lacks {", ".join(lost[:3])}, which {path} lists.')
        state |= {name: array for name, array in tensors.items() if name in wanted}
    return state
