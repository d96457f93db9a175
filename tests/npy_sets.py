"""Small data sets in the original's form, and files that claim what they do not have."""

import json

import numpy as np

FACTS = {
    'vocab_size': 6, 'seq_len': 4, 'num_puzzle_identifiers': 3, 'total_groups': 2,
    'mean_puzzle_examples': 2.0, 'pad_id': 0, 'ignore_label_id': 0, 'blank_identifier_id': 0,
    'sets': ['all'],
}  # fmt: skip


def npy(root, facts=None, **arrays):
    """Writes a folder of the original's form: 6 examples of 3 puzzles in 2 groups."""
    found = {
        'inputs': np.arange(24).reshape(6, 4) % 5 + 1,
        'labels': np.arange(24).reshape(6, 4) % 5 + 1,
        'puzzle_identifiers': [0, 1, 2],
        'puzzle_indices': [0, 1, 3, 6],
        'group_indices': [0, 2, 3],
        **arrays,
    }
    for split in ('train', 'test'):
        (root / split).mkdir(parents=True, exist_ok=True)
        (root / split / 'dataset.json').write_text(json.dumps(FACTS | (facts or {})))
        for field, values in found.items():
            values = np.asarray(values)
            small = values.dtype if field in arrays else np.uint8
            np.save(root / split / f'all__{field}.npy', values.astype(small))
    return root


def header(shape, dtype='|u1', version=b'\x01\x00'):
    """The header of a .npy file, whatever it claims."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b' ' * (-(len(text) + 11) % 64) + b'\n'
    return b'\x93NUMPY' + version + len(text).to_bytes(2, 'little') + text
