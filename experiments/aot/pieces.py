"""What a compiled program does, piece by piece: bytes, FLOPs, and the time that these cannot beat.

A piece is an instruction that the device runs as one: a fusion, a product, a copy, a kernel. It
reads its operands from the device's memory and writes its results there; what stays inside a fusion
costs nothing. Its time is at least bytes / bandwidth and FLOPs / peak. The sum over all
pieces bounds a step from below, as the pieces of one device run one after the other. Caches between
the pieces, launches and traffic between devices are left out.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import math
import re

from experiments.aot import hlo

_INSTRUCTION = re.compile(r'^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<rest>.*)$')
_OPCODE = re.compile(r' ([a-z][\w\-]*)\(')
_NAME = re.compile(r'%([\w.\-]+)')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_DIMS = re.compile(r'lhs_contracting_dim(?:s|ensions)"?[=:]?\s*[{\[]([\d",\s]*)[}\]]')
_LABELS = re.compile(r'dim_labels=(\w+)_(\w+)->(\w+)')
# Neither read nor written: names for what others make.
_FREE = {
    'parameter', 'constant', 'get-tuple-element', 'tuple', 'bitcast', 'after-all', 'partition-id',
    'replica-id', 'opt-barrier', 'copy-done', 'async-done', 'all-reduce-done', 'all-gather-done',
    'collective-permute-done', 'slice-done', 'dynamic-slice-done', 'async-update', 'domain',
}  # fmt: skip
_SLICES = {'slice', 'dynamic-slice', 'gather'}
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
    """

    what: str
    place: str
    times: int
    bytes: float
    flops: float
    is_wide: bool = False

    def bound(self, ceilings: Ceilings) -> tuple[float, float]:
        """Seconds of all runs: by the memory, and by the products."""
        peak = ceilings.float32 if self.is_wide else ceilings.products
        return self.times * self.bytes / ceilings.bandwidth, self.times * self.flops / peak


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    line: str


def _split(rest: str) -> tuple[str, str, str] | None:
    """Shape, opcode and what follows it, of an instruction's right side."""
    depth = 0
    for place, sign in enumerate(rest):
        depth += sign in '([{'
        depth -= sign in ')]}'
        if sign == ' ' and depth == 0:
            found = _OPCODE.match(rest[place:])
            if found:
                return rest[:place], found[1], rest[place + found.end() :]
    return None


def _read(lines: Sequence[str]) -> dict[str, _Instruction]:
    found = {}
    for line in lines:
        match = _INSTRUCTION.match(line)
        parts = _split(match['rest']) if match else None
        if match and parts:
            depth, end = 1, 0
            while depth and end < len(parts[2]):
                depth += (parts[2][end] == '(') - (parts[2][end] == ')')
                end += 1
            operands = tuple(_NAME.findall(parts[2][:end]))
            found[match['name']] = _Instruction(match['name'], *parts[:2], operands, line)
    return found


def bytes_of(shape: str) -> int:
    """Bytes in the device's memory of an array or a tuple; what a TPU keeps beside it is free."""
    return sum(array.bytes for array in hlo.arrays(shape) if array.in_memory)


def _first(shape: str) -> list[int]:
    return next((array.dims for array in hlo.arrays(shape)), [])


def _product_flops(one: _Instruction, own: dict[str, _Instruction]) -> float:
    """FLOPs of a dot, a convolution or a library's product; 0 for anything else."""
    if len(one.operands) < 2 or any(name not in own for name in one.operands[:2]):
        return 0.0
    left, right = (_first(own[name].shape) for name in one.operands[:2])
    made = math.prod(_first(one.shape))
    if one.opcode == 'convolution' and (labels := _LABELS.search(one.line)):
        kernel = labels[2]
        inner = right[kernel.index('i')]
        if 'lhs_dilate' not in one.line:  # dilated windows are how TPUs write batches
            inner *= math.prod(n for n, label in zip(right, kernel, strict=True) if label.isdigit())
        return 2.0 * made * inner
    is_library = one.opcode == 'custom-call' and 'cublas' in one.line
    if (one.opcode == 'dot' or is_library) and (dims := _DIMS.search(one.line)):
        contracted = [int(n) for n in re.findall(r'\d+', dims[1])]
        return 2.0 * made * math.prod(left[n] for n in contracted)
    return 0.0


def _kernel_flops(one: _Instruction, own: dict[str, _Instruction]) -> float:
    """FLOPs of our kernels, by what they return.

    Attention's forward pass and its log sums: two products of [T, T, K]; gradients of keys and
    values: four; of queries: three (both recompute the weights). The gated unit: two of [R, D, F].
    """
    shapes = [array.dims for array in hlo.arrays(one.shape)]
    if [len(shape) for shape in shapes] == [2]:
        return 4.0 * math.prod(shapes[0]) * _first(own[one.operands[0]].shape)[1]
    heads = [shape for shape in shapes if len(shape) == 4]
    if not heads or not one.operands or one.operands[0] not in own:
        return 0.0
    batch, length, count, width = heads[0]
    products = 4 if len(heads) == 2 else 2 if len(shapes) > 1 else 3
    return 2.0 * products * batch * count * length * length * width


def _used_bytes(number: int, size: int, inner: dict[str, _Instruction]) -> int:
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
    one: _Instruction, own: dict[str, _Instruction], inner: dict[str, _Instruction]
) -> int:
    moved = 0
    for number, name in enumerate(one.operands):
        size = bytes_of(own[name].shape) if name in own else 0
        moved += _used_bytes(number, size, inner)
    root = next((other for other in inner.values() if 'ROOT' in other.line), None)
    if root and root.opcode == 'dynamic-update-slice' and root.operands[1] in inner:
        return moved + bytes_of(inner[root.operands[1]].shape)
    return moved + bytes_of(one.shape)


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
    read = {name: _read(lines) for name, lines in computations.items()}

    def visit(name: str, times: int) -> Iterator[Piece]:
        own = read.get(name, {})
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
        what, flops, wide = one.opcode, _product_flops(one, own), one.shape.startswith('f32')
        if one.opcode == 'fusion' and called:
            inner = read.get(called[0], {})
            moved = _fusion_bytes(one, own, inner)
            products = [(_product_flops(other, inner), other) for other in inner.values()]
            flops = sum(count for count, _ in products)
            wide = all(_is_wide(other, inner) for count, other in products if count)
        else:
            moved = bytes_of(one.shape) + sum(
                # A kernel may be given one array several times, for its parts.
                bytes_of(own[name].shape)
                for name in dict.fromkeys(one.operands)
                if name in own
            )
            wide = bool(flops) and _is_wide(one, own)
            if one.opcode == 'copy-start':
                moved = 2 * bytes_of(own[one.operands[0]].shape)
        if target := _TARGET.search(one.line):
            what = target[1]
            if 'triton' in what or 'tpu_custom_call' in what:
                flops, wide = _kernel_flops(one, own), False
            workspace = re.findall(r's8\[\d+\]\S*', one.shape)  # room, which need not be touched
            moved -= sum(map(bytes_of, workspace))
        return Piece(what, _place(one.line), times, moved, flops, wide and flops > 0)

    return list(visit(entry, 1))


def _is_wide(one: _Instruction, own: dict[str, _Instruction]) -> bool:
    return all(own[n].shape.startswith('f32') for n in one.operands[:2] if n in own)


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
    times = [one.bound(ceilings) for one in found]
    return Bound(
        seconds=sum(max(pair) for pair in times),
        bytes=sum(one.times * one.bytes for one in found),
        flops=sum(one.times * one.flops for one in found),
        of_memory=sum(memory for memory, products in times if memory >= products),
    )


def grouped(found: Sequence[Piece], ceilings: Ceilings) -> list[tuple[Piece, int, float]]:
    """Pieces of one kind and place together, those that the memory holds up, longest first.

    Returns:
      (a piece that stands for all: its runs, bytes and FLOPs are sums; pieces; seconds).
    """
    groups: dict[tuple[str, str], list[Piece]] = {}
    for one in found:
        memory, products = one.bound(ceilings)
        if memory >= products:
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
