"""Weights without a training state as a checkpoint of ours."""

from collections.abc import Iterator
import contextlib
import json
import os
from pathlib import Path
import shutil

from absl import logging
import numpy as np
import orbax.checkpoint as ocp

from hrm_jax import checkpoint
from hrm_jax.checkpoint import Weights
from hrm_jax.interop.errors import CheckpointFormatError

# orbax holds two copies of an array while it writes it. A puzzle table of ARC has 1.8 GB, so
# tables from this size on are written in pieces.
_LARGE_BYTES = 2**28
_PIECE_BYTES = 2**25


def write_weights(workdir: str | os.PathLike, weights: Weights) -> Path:
    """Writes ``workdir/checkpoints/STEP`` with params, constants, puzzle_table, ema and meta.

    Evaluation, solving and fine-tuning start from it; a run can not be *resumed* from it, since
    there is no optimizer state. The folder gets its name when it is complete.

    Raises:
      CheckpointFormatError: there is a checkpoint of this step already.
    """
    folder = Path(workdir).absolute() / checkpoint.FOLDER / str(weights.step)
    if folder.exists():
        raise CheckpointFormatError(f'{folder} exists already; choose another destination.')
    trees = {'params': weights.params, 'constants': weights.constants, 'ema': weights.ema}
    table = weights.puzzle_table
    large = table is not None and table.nbytes >= _LARGE_BYTES
    if table is not None:
        trees['puzzle_table'] = {'array': np.zeros((1, 1), np.float32) if large else table}
    args = {name: ocp.args.StandardSave(tree) for name, tree in trees.items() if tree is not None}
    meta = weights.meta | {'step': weights.step, 'config': weights.config.to_dict()}
    args['meta'] = ocp.args.JsonSave(json.loads(json.dumps(meta)))
    with _appearing(folder) as beside:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
            writer.save(beside, args=ocp.args.Composite(**args))
        if large:
            _replace_array(beside / 'puzzle_table', 'array', table)
    return folder


@contextlib.contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """Gives a folder of the same name elsewhere, which moves to its place when all went well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Under its final name already, because checkpoints know their step by it.
    outer = folder.parent / f'.{folder.name}.tmp-{os.getpid()}'
    try:
        yield outer / folder.name
        os.replace(outer / folder.name, folder)
    finally:
        shutil.rmtree(outer, ignore_errors=True)


def _replace_array(item: Path, name: str, array: np.ndarray) -> None:
    """Writes an array piece by piece in the place of a small one that orbax wrote."""
    import tensorstore

    rows = max(1, _PIECE_BYTES * len(array) // array.nbytes)
    store = tensorstore.open(
        {
            'driver': 'zarr',
            'kvstore': {'driver': 'ocdbt', 'base': f'file://{item}/', 'path': f'{name}/'},
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


def read_weights(path: str | os.PathLike) -> Weights:
    """Reads the folder of a checkpoint, or the latest checkpoint of a working directory.

    Raises:
      CheckpointError: there is none, or it is damaged.
    """
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)  # orbax warns of files that only whole checkpoints have
    try:
        return checkpoint.restore_weights(checkpoint.resolve(os.fspath(path), Path(path)))
    finally:
        logging.set_verbosity(verbosity)
