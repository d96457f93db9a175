"""Counts the collectives of a compiled program from its text."""

from collections.abc import Iterator
import dataclasses
import math
import re

KINDS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')

_HEADER = re.compile(r'^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) .*\{\s*$')
_COLLECTIVE = re.compile(rf' (?P<kind>{"|".join(KINDS)})(?P<start>-start)?\(')
_CALLED = re.compile(
    r'(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)'
    r'|(?:branch_computations|called_computations)=\{([^}]*)\}'
)
_CHANNEL = re.compile(r'channel_id=(\d+)')
_CONDITION = re.compile(r'condition=%?([\w.\-]+)')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_CONSTANT = re.compile(r' s32\[\]\S* constant\((\d+)\)')
_ARRAY = re.compile(r'\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?')
_BITS = re.compile(r'^[a-z]+?(\d+)')


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Collectives of one kind in one run of the program.

    Attributes:
      count: how many run; those inside a loop as often as it turns.
      bytes: size of their results on one device, summed.
    """

    count: int = 0
    bytes: int = 0


@dataclasses.dataclass(frozen=True)
class Array:
    """An array in the text of a shape.

    Attributes:
      dims: its sizes.
      bytes: of all elements; a token's are none.
      in_memory: False: a TPU keeps it beside the device's memory.
    """

    dims: list[int]
    bytes: int
    in_memory: bool


def arrays(shape: str) -> list[Array]:
    """The arrays in the text of a shape, of a tuple in their order."""
    found = []
    for dtype, text, layout in _ARRAY.findall(shape):
        dims = [int(size) for size in text.split(',') if size]
        bits = _BITS.match(dtype)
        each = int(bits[1]) if bits else 0 if dtype == 'token' else 8  # pred
        found.append(Array(dims, math.prod(dims) * each // 8, 'S(1)' not in layout))
    return found


def _result_bytes(kind: str, is_start: bool, shape: str) -> int:
    sizes = [array.bytes for array in arrays(shape)]
    if not is_start or kind in ('all-reduce', 'all-to-all', 'reduce-scatter'):
        return sum(sizes)
    if kind == 'collective-permute':  # (operand, result) and two counters
        sizes = sizes[:2]
    return sum(sizes[len(sizes) // 2 :])  # (operands, results)


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines of every computation by its name, and the name of the entry.

    Raises:
      ValueError: there is no entry.
    """
    found: dict[str, list[str]] = {}
    entry, lines = '', None
    for line in text.splitlines():
        if not line.startswith((' ', '}')):
            header = _HEADER.match(line)
            lines = None
            if header and not line.startswith('HloModule'):
                lines = found.setdefault(header['name'], [])
                entry = header['name'] if header['entry'] else entry
        elif lines is not None:
            lines.append(line)
    if not entry:
        raise ValueError('the text must be of a compiled program; it has no ENTRY computation.')
    return found, entry


def called(line: str) -> Iterator[str]:
    """Names of the computations that an instruction runs."""
    for one, several in _CALLED.findall(line):
        yield from [one] if one else re.findall(r'[\w.\-]+', several)


def turns(line: str, computations: dict[str, list[str]]) -> int:
    """How often a loop turns, by the compiler's note or by the constant it compares with."""
    noted = _TRIPS.search(line)
    if noted:
        return int(noted[1])
    condition = _CONDITION.search(line)
    lines = computations.get(condition[1], []) if condition else []
    constants = [int(found[1]) for found in map(_CONSTANT.search, lines) if found]
    return constants[0] if len(constants) == 1 else 1


def collectives(text: str) -> dict[str, Traffic]:
    """Traffic between the devices in one run of the program.

    Args:
      text: of a compiled program, ``compiled.as_text()``.

    Returns:
      Traffic by kind, only kinds that occur. Of a conditional, all branches count; a loop whose
      turns the text does not show counts once.

    Raises:
      ValueError: the text has no entry computation.
    """
    found_in, entry = computations(text)
    # TPUs overlap one collective with several fusions, each of which names it: same channel.
    found: dict[tuple[str, str], tuple[int, int]] = {}

    def visit(name: str, times: int) -> None:
        for line in found_in.get(name, ()):
            match = _COLLECTIVE.search(line.split(', metadata=')[0])
            if match and ' = ' in line[: match.start()]:
                shape = line[: match.start()].split(' = ', 1)[1]
                size = _result_bytes(match['kind'], bool(match['start']), shape)
                channel = _CHANNEL.search(line)
                key = (match['kind'], channel[1] if channel else f'{name}: {line}')
                found[key] = max(found.get(key, (0, 0)), (times, size))
            inner = times * turns(line, found_in) if ' while(' in line else times
            for other in called(line):
                visit(other, inner)

    visit(entry, 1)
    totals = {}
    for kind in KINDS:
        runs = [run for (other, _), run in found.items() if other == kind]
        if runs:
            moved = sum(times * size for times, size in runs)
            totals[kind] = Traffic(sum(times for times, _ in runs), moved)
    return totals


def kernels(text: str) -> int:
    """Number of kernels of our own or of Pallas that the program's text names."""
    return len(
        re.findall(r'custom_call_target="(?:tpu_custom_call|__gpu\$xla\.gpu\.triton)"', text)
    )
