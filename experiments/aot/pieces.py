"""What a compiled program does, piece by piece: bytes, FLOPs, and the time that these cannot beat.

A piece is an instruction that the device runs as one: a fusion, a product, a copy, a kernel. It
reads its operands from the device's memory and writes its results there; what stays inside a fusion
costs nothing. Its time is at least bytes / bandwidth and FLOPs / peak. The sum over all
pieces bounds a step from below, as the pieces of one device run one after the other; only copies
that are begun and waited for later (a TPU fetches so) run beside them, and share the bandwidth.
Caches between the pieces, launches and traffic between devices are left out.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import re

from experiments.aot import hlo, products
from experiments.aot.instructions import Instruction, bytes_of, read

_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
# Neither read nor written: names for what others make.
_FREE = {
    'parameter', 'constant', 'get-tuple-element', 'tuple', 'bitcast', 'after-all', 'partition-id',
    'replica-id', 'opt-barrier', 'copy-done', 'async-done', 'all-reduce-done', 'all-gather-done',
    'collective-permute-done', 'slice-done', 'dynamic-slice-done', 'async-update', 'domain',
}  # fmt: skip
_SLICES = {'slice', 'dynamic-slice', 'gather'}
_MOVES = {'copy-start', 'slice-start', 'dynamic-slice-start'}  # beside other pieces
_VIEWS = {'bitcast', 'reshape', 'get-tuple-element'}


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """What a device can do at most.

    Attributes:
      products: FLOP/s of 16-bit matrix products.
      bandwidth: bytes/s between the device and its memory.
      float32: FLOP/s of float32 products at full precision.
    """

    products: float
    bandwidth: float
    float32: float


# The makers' figures: NVIDIA H100 and H200 SXM (dense), Google v5e and v6e.
KNOWN = {
    'h100': Ceilings(989e12, 3.35e12, 67e12),
    'v5e': Ceilings(197e12, 0.819e12, 197e12 / 6),
    'v6e': Ceilings(918e12, 1.64e12, 918e12 / 6),
    'v5p': Ceilings(459e12, 2.765e12, 459e12 / 6),
}


@dataclasses.dataclass(frozen=True)
class Piece:
    """One instruction, as often as it runs in a step.

    Attributes:
      what: opcode, or the name of a library's or kernel's call.
      place: where in the model it comes from, layers and numbers left out.
      times: runs in one step.
      bytes: read and written in one run.
      flops: of matrix products in one run.
      is_wide: the products are in float32.
      is_beside: a copy that runs beside other pieces.
    """

    what: str
    place: str
    times: int
    bytes: float
    flops: float
    is_wide: bool = False
    is_beside: bool = False

    def bound(self, ceilings: Ceilings) -> tuple[float, float]:
        """Seconds of all runs: by the memory, and by the products."""
        peak = ceilings.float32 if self.is_wide else ceilings.products
        return self.times * self.bytes / ceilings.bandwidth, self.times * self.flops / peak


def _used_bytes(number: int, size: int, inner: dict[str, Instruction]) -> int:
    """Bytes that a fusion reads of its operand: of slices alone where it takes nothing else."""
    names = {
        one.name for one in inner.values()
        if one.opcode == 'parameter' and f' parameter({number})' in one.line
    }  # fmt: skip
    taken = 0
    while names:
        users = [one for one in inner.values() if names & set(one.operands)]
        names = set()
        for one in users:
            if one.opcode in _VIEWS:
                names.add(one.name)
            elif one.opcode in _SLICES:
                taken += bytes_of(one.shape)
            elif one.opcode == 'dynamic-update-slice' and 'ROOT' in one.line:
                continue  # written in place
            else:
                return size
    return min(size, taken)


def _fusion_bytes(
    one: Instruction, own: dict[str, Instruction], inner: dict[str, Instruction]
) -> int:
    moved = 0
    for number, name in enumerate(one.operands):
        size = bytes_of(own[name].shape) if name in own else 0
        moved += _used_bytes(number, size, inner)
    root = next((other for other in inner.values() if 'ROOT' in other.line), None)
    if root and root.opcode == 'dynamic-update-slice' and root.operands[1] in inner:
        return moved + bytes_of(inner[root.operands[1]].shape)
    return moved + bytes_of(one.shape)


def _moved_bytes(one: Instruction, own: dict[str, Instruction]) -> int:
    """Bytes of a copy, or of a slice alone, that begins; either end may be beside the memory."""
    made, *others = [array for array in hlo.arrays(one.shape) if array.dims]
    if one.opcode != 'copy-start':  # (operand, result), not (result, operand)
        made = others[0]
    is_read = bytes_of(own[one.operands[0]].shape) > 0
    return made.bytes * (is_read + made.in_memory)


def _place(line: str) -> str:
    found = _OP_NAME.search(line)
    text = found[1] if found else ''
    text = re.sub(r'jit\(\w*\)/?|HRM[\w.]*/?|while/body/|closed_call/|checkpoint/', '', text)
    text = text.replace('jvp()/', '').replace('transpose(jvp())', 'backward')
    text = re.sub(r'transpose\(jvp\(/?\)?\)?', 'backward', text)
    return re.sub(r'layers_\d+', 'layers', re.sub(r'jvp\((.*?)\)', r'\1', text)) or '(no name)'


def pieces(text: str) -> list[Piece]:
    """The pieces of one run of a program.

    Args:
      text: of a compiled program, ``compiled.as_text()``.

    Raises:
      ValueError: it has no entry computation.
    """
    computations, entry = hlo.computations(text)
    programs = {name: read(lines) for name, lines in computations.items()}

    def visit(name: str, times: int) -> Iterator[Piece]:
        own = programs.get(name, {})
        for one in own.values():
            called = list(hlo.called(one.line))
            if one.opcode == 'while':
                turns = hlo.turns(one.line, computations)
                for other in called:
                    yield from visit(other, times * turns)
            elif one.opcode in ('call', 'conditional', 'async-start'):
                for other in called:
                    yield from visit(other, times)
            elif one.opcode not in _FREE:
                yield piece(one, own, called, times)

    def piece(one, own, called, times: int) -> Piece:
        what, flops, wide = one.opcode, products.flops(one, own), one.shape.startswith('f32')
        if one.opcode == 'fusion' and called:
            inner = programs.get(called[0], {})
            moved = _fusion_bytes(one, own, inner)
            counts = [(products.flops(other, inner), other) for other in inner.values()]
            flops = sum(count for count, _ in counts)
            wide = all(products.is_wide(other, inner) for count, other in counts if count)
        elif one.opcode in _MOVES:
            moved = _moved_bytes(one, own)
        else:
            moved = bytes_of(one.shape) + sum(
                # A kernel may be given one array several times, for its parts.
                bytes_of(own[name].shape)
                for name in dict.fromkeys(one.operands)
                if name in own
            )
            wide = bool(flops) and products.is_wide(one, own)
        if target := _TARGET.search(one.line):
            what = target[1]
            if 'triton' in what or 'tpu_custom_call' in what:
                flops, wide = products.kernel_flops(one, own), False
            workspace = re.findall(r'[su]8\[\d+\]\S*', one.shape)  # room, which need not be touched
            moved -= sum(map(bytes_of, workspace))
        return Piece(
            what, _place(one.line), times, moved, flops, wide and flops > 0,
            is_beside=one.opcode in _MOVES,
        )  # fmt: skip

    return list(visit(entry, 1))


@dataclasses.dataclass(frozen=True)
class Bound:
    """The sum over pieces.

    Attributes:
      seconds: that a step takes at least.
      bytes, flops: of a step.
      of_memory: seconds in which the memory is what holds up.
    """

    seconds: float
    bytes: float
    flops: float
    of_memory: float


def bound(found: Sequence[Piece], ceilings: Ceilings) -> Bound:
    """The least time of a step that is made of these pieces."""
    times = [one.bound(ceilings) for one in found if not one.is_beside]
    in_turn = sum(max(pair) for pair in times)
    whole = sum(one.bound(ceilings)[0] for one in found)
    seconds = max(in_turn, whole)
    of_memory = sum(memory for memory, products in times if memory >= products)
    return Bound(
        seconds=seconds,
        bytes=sum(one.times * one.bytes for one in found),
        flops=sum(one.times * one.flops for one in found),
        of_memory=of_memory + seconds - in_turn,
    )


def grouped(found: Sequence[Piece], ceilings: Ceilings) -> list[tuple[Piece, int, float]]:
    """Pieces of one kind and place together, those that the memory holds up, longest first.

    Returns:
      (a piece that stands for all: its runs, bytes and FLOPs are sums; pieces; seconds).
    """
    groups: dict[tuple[str, str], list[Piece]] = {}
    for one in found:
        memory, products = one.bound(ceilings)
        if memory >= products and not one.is_beside:
            groups.setdefault((one.what, one.place), []).append(one)
    made = []
    for (what, place), members in groups.items():
        whole = Piece(
            what, place, sum(one.times for one in members),
            sum(one.times * one.bytes for one in members),
            sum(one.times * one.flops for one in members),
        )  # fmt: skip
        made.append((whole, len(members), sum(one.bound(ceilings)[0] for one in members)))
    return sorted(made, key=lambda entry: -entry[2])
