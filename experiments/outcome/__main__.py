"""Trains the originals' own code and ours alike, and compares what they learn.

    git clone https://github.com/sapientinc/HRM
    git clone https://github.com/SamsungSAILMontreal/TinyRecursiveModels
    git clone https://github.com/krychu/hrm paths
    python -m experiments.outcome --hrm HRM --trm TinyRecursiveModels --paths paths

Small models on generated 4x4 Sudokus and 5x5 boards, the same folder, settings and number of seeds
on both sides, one thread each, in turns. --python names an interpreter with torch, numpy and what
the original imports of the ordinary kind (einops for TinyRecursiveModels); CUDA extensions and
trackers are replaced (experiments/benchmark/stand_ins.py). A case without a checkout is left out.

Every finished run is kept as FOLDER/curves/*.json: the same command trains what is missing, and
--report only writes what is there. Writes OUTPUT.md, OUTPUT.png and OUTPUT.json.
"""

import argparse
from collections.abc import Sequence
import datetime
from pathlib import Path
import shlex
import signal
import sys

from hrm_jax.errors import UserError

CASES = ('hrm', 'trm', 'paths')


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        prog='python -m experiments.outcome',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add('--hrm', metavar='DIR', help='checkout of sapientinc/HRM')
    add('--trm', metavar='DIR', help='checkout of SamsungSAILMontreal/TinyRecursiveModels')
    add('--paths', metavar='DIR', help='checkout of krychu/hrm')
    add('--python', default=sys.executable, help='interpreter with torch (default: this one)')
    add('--seeds', type=int, default=3, help='runs of each side (3)')
    add('--jobs', type=int, default=1, help='runs at a time, a core each (1)')
    add('--folder', type=Path, help='of data and finished runs (runs/outcome[_small])')
    add('--output', metavar='PATH', help='PATH.md, .png and .json (FOLDER/report)')
    add('--small', action='store_true', help='two short epochs, to see that it works')
    add('--report', action='store_true', help='train nothing, write what is finished')
    args = parser.parse_args(argv)
    if not any(getattr(args, name) for name in CASES):
        parser.error('name at least one checkout: --hrm, --trm or --paths')
    if min(args.seeds, args.jobs) < 1:
        parser.error(f'--seeds and --jobs must be at least 1; got {args.seeds} and {args.jobs}')
    args.folder = args.folder or Path('runs/outcome_small' if args.small else 'runs/outcome')
    args.output = args.output or str(args.folder / 'report')
    return args


def compare_all(args: argparse.Namespace, command: str) -> int:
    """Trains and reports; returns the exit code: 1 where something could not be compared."""
    from experiments import originals
    from experiments.benchmark.__main__ import describe_machine
    from experiments.outcome import compare, page, runs
    from experiments.outcome.cases import cases

    known = cases(args.small)
    asked = [known[name] for name in CASES if getattr(args, name)]
    for case in asked:
        originals.check_checkout(case.name, getattr(args, case.name))
        case.build(args.folder / 'data' / case.name)
    todo = runs.in_turns(
        asked, args.seeds, folder=args.folder, python=args.python,
        checkouts={case.name: getattr(args, case.name) for case in asked},
    )  # fmt: skip
    results, trouble = [], {case.name: [] for case in asked}
    if args.report:
        finished = ((run, run.finished()) for run in todo)
    else:
        finished = runs.run_all(todo, args.jobs)
    for run, found in finished:
        if isinstance(found, runs.Result):
            results.append(found)
            if not args.report:
                value = found.metrics[run.case.metrics[0]][-1]
                print(f'{run.name}: {run.case.metrics[0]} {value:.3f}', flush=True)
        elif found is not None and str(found) not in trouble[run.case.name]:
            trouble[run.case.name].append(str(found))
            print(f'error: {found}', file=sys.stderr, flush=True)
    results.sort(key=lambda r: (CASES.index(r.case), r.seed, runs.SIDES.index(r.side)))
    for case in asked:
        own = [r for r in results if r.case == case.name]
        missing = {side: args.seeds - len(compare.of_side(own, side)) for side in runs.SIDES}
        if any(missing.values()) and not trouble[case.name]:
            rest = ' and '.join(f'{count} of {side}' for side, count in missing.items() if count)
            trouble[case.name].append(f'not trained yet: {rest} ({args.seeds} each are asked for).')
        if own:
            compare.check(own)
    machine = describe_machine()
    header = {
        'date': datetime.date.today().isoformat(),
        'command': f'`{command}`',
        'machine': f'{machine["processor:"]}, {machine["cores:"]} cores',
        'versions': ', '.join(sorted(
            {f'{key} {r.facts[key]}' for r in results for key in ('jax', 'torch') if key in r.facts}
        )),
        'commit': machine['commit'],
    }  # fmt: skip
    page.write(args.output, header, asked, results, trouble)
    for case in asked:
        whole = compare.comparable([r for r in results if r.case == case.name])
        found = compare.verdicts(whole, case.metrics, case.test) if whole else []
        for verdict in found:
            print(f'{case.name}, {verdict.what}: original {verdict.original.text()}, ours '
                  f'{verdict.ours.text()}: {verdict.text}')  # fmt: skip
    print(f'wrote {args.output}.md')
    return int(any(trouble.values()))


def _stop(number: int, frame: object) -> None:
    del frame
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    args = parse(argv)
    given = sys.argv[1:] if argv is None else argv
    told = [flag for flag in given if flag != '--report']  # what made the runs
    command = shlex.join(['python', '-m', 'experiments.outcome', *told])
    signal.signal(signal.SIGTERM, _stop)
    try:
        return compare_all(args, command)
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        return error.exit_code


if __name__ == '__main__':
    sys.exit(main())
