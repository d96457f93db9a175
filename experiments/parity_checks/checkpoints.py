"""Checkpoint files that the originals wrote: read without torch, converted, and written again."""

import json
from pathlib import Path
import tempfile

from experiments.parity_checks.registry import Fixture, Report
from hrm_jax.interop import formats, torch_reader


def round_trip(fixture: Fixture, report: Report) -> None:
    """torch -> orbax -> torch of ``NAME.pt``: the same names, order, types and bytes."""
    path = fixture.folder / f'{fixture.stem}.pt'
    if not path.is_file():
        return
    original = torch_reader.read_torch(path)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / 'config.json'
        config.write_text(json.dumps(fixture.info['config']))
        formats.save(formats.load(path, config=str(config)), folder / 'ours', 'orbax')
        back = formats.save(formats.load(folder / 'ours'), folder / 'step_1', 'torch')
        again = torch_reader.read_torch(back)
        wrong = [
            name
            for name in original.keys() | again.keys()
            if name not in again
            or name not in original
            or original[name].dtype != again[name].dtype
            or original[name].tobytes() != again[name].tobytes()
        ]
    wrong += [] if list(original) == list(again) else ['the order']
    note = '; '.join([f'{len(original)} tensors', *wrong])
    report.below('checkpoint to orbax and back', len(wrong), 0, note)
