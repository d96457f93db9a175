"""Models without a training state as checkpoints of ours."""

import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hrm_jax import files
from hrm_jax.checkpoint import digests, layout, store
from hrm_jax.checkpoint.places import plain
from hrm_jax.checkpoint.store import SavedModel
from hrm_jax.errors import CheckpointError

# orbax holds two copies of an array while it writes it. A puzzle table of ARC has 1.8 GB, so
# tables from this size on are written in pieces.
_LARGE_BYTES = 2**28
_PIECE_BYTES = 2**25


def write_model(workdir: str | os.PathLike, saved: SavedModel) -> Path:
    """Writes ``workdir/checkpoints/STEP`` with params, constants, puzzle_table, ema and meta.

    Evaluation, solving and fine-tuning start from it; a run cannot be *resumed* from it, since
    there is no optimizer state. The folder gets its name when it is complete and was read back.

    Raises:
      CheckpointError: there is a checkpoint of this step already, or another process writes it.
    """
    workdir = files.local_path(workdir, 'the destination', CheckpointError)
    folder = workdir / layout.FOLDER / str(saved.step)
    if folder.exists():
        raise CheckpointError(f'{folder} exists already; choose another destination.')
    trees = {'params': saved.weights.params, 'constants': saved.weights.constants, 'ema': saved.ema}
    table = saved.weights.puzzle_table
    large = table is not None and table.nbytes >= _LARGE_BYTES
    if table is not None:
        trees['puzzle_table'] = {'array': np.zeros((1, 1), np.float32) if large else table}
    trees = {name: tree for name, tree in trees.items() if jax.tree.leaves(tree)}
    whole = trees | ({'puzzle_table': {'array': table}} if table is not None else {})
    found = {name: digests.of_numpy(array) for name, array in digests.named(whole).items()}
    meta = {'dataset': {}, 'metrics': {}} | saved.meta | {
        'step': saved.step, 'config': saved.config.to_dict(), 'weights_only': True,
        'has_digests': True,
    }  # fmt: skip
    import orbax.checkpoint as ocp

    from hrm_jax.checkpoint import digest_item
    from hrm_jax.checkpoint.saver import for_writing

    args: dict[str, Any] = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
    args['meta'] = ocp.args.JsonSave(layout.sealed(json.loads(json.dumps(meta))))
    args[digests.ITEM] = digest_item.DigestSave(found, {'meta': ''})
    with files.new_folder(folder) as beside:
        beside.rmdir()  # orbax makes it itself
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
            writer.save(for_writing(beside.parent) / beside.name, args=ocp.args.Composite(**args))
        if table is not None and large:
            _replace_array(plain(beside.parent) / beside.name / 'puzzle_table', 'array', table)
        store.verify(beside)
    return folder


def _replace_array(item: Path, name: str, array: np.ndarray) -> None:
    """Writes an array piece by piece in the place of a small one that orbax wrote."""
    import tensorstore

    rows = max(1, _PIECE_BYTES * len(array) // array.nbytes)
    base = {'driver': 'file', 'path': f'{item}/'}
    store = tensorstore.open(
        {
            'driver': 'zarr',
            'kvstore': {'driver': 'ocdbt', 'base': base, 'path': f'{name}/'},
            'metadata': {
                'shape': list(array.shape),
                'chunks': [rows, *array.shape[1:]],
                'dtype': array.dtype.str,
                'compressor': {'id': 'zstd', 'level': 1},
            },
        },
        create=True,
        delete_existing=True,
    ).result()
    for start in range(0, len(array), rows):
        piece = array[start : start + rows]
        store[start : start + len(piece)].write(piece).result()


def read_model(path: str | os.PathLike) -> SavedModel:
    """Reads the folder of a checkpoint, or the latest checkpoint of a working directory.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    return store.read_model(layout.resolve(os.fspath(path), layout.as_path(path)))
