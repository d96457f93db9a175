"""The roofline on paper: bytes and FLOPs of a program's pieces, and the bound that they make."""

import json

import jax
import jax.numpy as jnp
import pytest

from experiments.aot import build, hlo, pieces, roofline, targets
from hrm_jax.config import ExperimentConfig

# One of each kind: a loop of three turns with a library's product (and its workspace) and a fusion
# that reads one of eight slices; a product inside a fusion; a TPU's batched product, written as a
# dilated convolution; a kernel; an array beside the memory; a copy.
PROGRAM = """\
HloModule jit_step, is_scheduled=true

%fused_slice (p.1: bf16[8,64], i.1: s32[]) -> bf16[64] {
  %p.1 = bf16[8,64]{1,0} parameter(0)
  %i.1 = s32[] parameter(1)
  %cut = bf16[1,64]{1,0} dynamic-slice(%p.1, %i.1, %i.1), dynamic_slice_sizes={1,64}
  ROOT %flat = bf16[64]{0} bitcast(%cut)
}

%fused_product (p.2: bf16[16,32], p.3: bf16[32,8]) -> bf16[16,8] {
  %p.2 = bf16[16,32]{1,0} parameter(0)
  %p.3 = bf16[32,8]{1,0} parameter(1)
  ROOT %dot.1 = bf16[16,8]{1,0} dot(%p.2, %p.3), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (t.1: (s32[], bf16[16,32])) -> (s32[], bf16[16,32]) {
  %t.1 = (s32[], bf16[16,32]{1,0}) parameter(0)
  %i.2 = s32[] get-tuple-element(%t.1), index=0
  %x = bf16[16,32]{1,0} get-tuple-element(%t.1), index=1
  %w = bf16[32,32]{1,0} constant({...})
  %big = bf16[8,64]{1,0} constant({...})
  %lib = (bf16[16,32]{1,0}, s8[4096]{0}) custom-call(%x, %w), custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(on_mesh)/jvp(HRM)/while/body/closed_call/L_level/layers_3/mlp/dot_general"}, backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  %one = bf16[64]{0} fusion(%big, %i.2), kind=kLoop, calls=%fused_slice
  ROOT %t.2 = (s32[], bf16[16,32]{1,0}) tuple(%i.2, %x)
}

%condition (t.3: (s32[], bf16[16,32])) -> pred[] {
  %t.3 = (s32[], bf16[16,32]{1,0}) parameter(0)
  ROOT %less = pred[] compare(%t.3, %t.3), direction=LT
}

ENTRY %main (a: bf16[16,32], b: bf16[32,8], q: bf16[2,82,8,64], e: f32[6,4,5], f: f32[6,5,7]) -> f32[3] {
  %a = bf16[16,32]{1,0} parameter(0)
  %b = bf16[32,8]{1,0} parameter(1)
  %q = bf16[2,82,8,64]{3,2,1,0} parameter(2)
  %e = f32[6,4,5]{2,1,0} parameter(3)
  %f = f32[6,5,7]{2,1,0} parameter(4)
  %u = bf16[6,4,5,1]{3,2,1,0} parameter(5)
  %v = bf16[8,7,5,1]{3,2,1,0} parameter(6)
  %bytes = s8[4096]{0} parameter(7)
  %far = f32[10]{0} parameter(8)
  %loop = (s32[], bf16[16,32]{1,0}) while(%t), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %inside = bf16[16,8]{1,0} fusion(%a, %b), kind=kOutput, calls=%fused_product
  %batched = f32[6,4,7]{2,1,0} convolution(%e, %f), window={size=6 stride=5 pad=0_0 lhs_dilate=6}, dim_labels=0bf_0io->0bf
  %kernel = (bf16[2,82,8,64]{3,2,1,0}, f32[2,8,82]{2,1,0}) custom-call(%q, %q, %q), custom_call_target="__gpu$xla.gpu.triton"
  %hidden = bf16[16,8]{1,0} custom-call(%a, %b, %b), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(f)/gated_unit/pallas_call"}
  %windows = bf16[6,4,8,7]{3,2,1,0} convolution(%u, %v), window={size=1x8 pad=0_0x7_7 rhs_reversal=0x1}, dim_labels=b0f1_1oi0->b01f
  %heads = (bf16[2,8,82,64]{3,1,2,0}, f32[2,8,82]{2,1,0}, u8[64]{0}) custom-call(%q, %q, %q), custom_call_target="__cudnn$fmhaSoftmax"
  %slopes = (bf16[2,8,82,64]{3,1,2,0}, bf16[2,8,82,64]{3,1,2,0}, bf16[2,8,82,64]{3,1,2,0}, u8[0]{0}) custom-call(%q, %q, %q, %q), custom_call_target="__cudnn$fmhaSoftmaxBackward"
  %part = ((s8[4096]{0}), s8[1024]{0:S(1)}, s32[]{:S(2)}) slice-start(%bytes), slice={[0:1024]}
  %ahead = (f32[10]{0:S(1)}, f32[10]{0}, u32[]) copy-start(%far)
  %near = f32[1000]{0:T(1024)S(1)} fusion(), kind=kLoop, calls=%fused_product
  ROOT %copied = f32[3]{0} copy(%c)
}
"""  # noqa: E501


def test_pieces_of_a_program():
    made = pieces.pieces(PROGRAM)
    (hidden,) = (one for one in made if one.place == 'gated_unit/pallas_call')
    made.remove(hidden)
    assert (hidden.bytes, hidden.flops) == (2 * (16 * 32 + 32 * 8 + 16 * 8), 4 * 16 * 8 * 32)
    found = {(one.what, one.times): one for one in made}
    library = found['__cublas$lt$matmul', 3]
    assert (library.bytes, library.flops) == (2 * (16 * 32 + 32 * 32 + 16 * 32), 2 * 16 * 32 * 32)
    assert library.place == 'L_level/layers/mlp/dot_general'
    assert found['fusion', 3].bytes == 2 * 64 + 4 * 0 + 2 * 64 + 4  # a slice, its index, the result
    kernel = found['__gpu$xla.gpu.triton', 1]
    assert kernel.bytes == 2 * 2 * (2 * 82 * 8 * 64) + 4 * 2 * 8 * 82  # one array for q, k, v
    assert kernel.flops == 2 * 2 * 2 * 8 * 82 * 82 * 64
    dilated, padded = (one for one in made if one.what == 'convolution')
    assert (dilated.flops, dilated.is_wide) == (2 * 6 * 4 * 7 * 5, True)
    # Eight outputs and a window of eight over one input: of 64 pairs eight are no padding.
    assert (padded.flops, padded.is_wide) == (2 * 6 * 4 * 7 * 5 * 8, False)
    product = 2 * 2 * 8 * 82 * 82 * 64
    heads = found['__cudnn$fmhaSoftmax', 1]
    assert (heads.flops, heads.bytes) == (2 * product, kernel.bytes)
    assert found['__cudnn$fmhaSoftmaxBackward', 1].flops == 5 * product
    assert found['slice-start', 1].bytes == 1024  # read, and kept beside the memory
    assert found['copy-start', 1].bytes == 10 * 4
    assert found['copy-start', 1].is_beside
    assert found['copy', 1].bytes == 3 * 4
    inside, near = (one for one in pieces.pieces(PROGRAM) if (one.what, one.times) == ('fusion', 1))
    assert (inside.flops, inside.is_wide) == (2 * 16 * 8 * 32, False)
    assert inside.bytes == 2 * (16 * 32 + 32 * 8 + 16 * 8)
    assert near.bytes == 0  # a TPU keeps it beside its memory
    assert 'parameter' not in {what for what, _ in found}
    with pytest.raises(ValueError, match='no ENTRY'):
        pieces.pieces('')


def test_the_bound_is_the_slower_of_memory_and_products():
    ceilings = pieces.Ceilings(products=1e12, bandwidth=1e9, float32=1e11)
    slow = pieces.Piece('copy', 'a', 2, 1e6, 0.0)  # 2 ms of memory
    busy = pieces.Piece('dot', 'b', 1, 1e6, 4e9)  # 1 ms of memory, 4 ms of products
    wide = pieces.Piece('dot', 'c', 1, 0.0, 1e9, is_wide=True)  # 10 ms
    bound = pieces.bound([slow, busy, wide], ceilings)
    assert bound.seconds == pytest.approx(16e-3)
    assert bound.of_memory == pytest.approx(2e-3)
    assert (bound.bytes, bound.flops) == (3e6, 5e9)
    hidden = pieces.Piece('copy-start', 'd', 1, 12e6, 0.0, is_beside=True)  # 12 ms of memory
    assert pieces.bound([slow, busy, wide, hidden], ceilings).seconds == pytest.approx(16e-3)
    longer = pieces.bound([slow, busy, wide, hidden, hidden], ceilings)  # 27 ms of memory in all
    assert (longer.seconds, longer.of_memory) == pytest.approx((27e-3, 13e-3))
    assert pieces.grouped([hidden], ceilings) == []
    (entry,) = pieces.grouped([slow, busy, slow], ceilings)
    assert (entry[0].what, entry[0].times, entry[0].bytes, entry[1]) == ('copy', 4, 4e6, 2)
    assert entry[2] == pytest.approx(4e-3)


def test_a_real_program_counts_every_product():
    """Of this machine's compiler: a loop of products, which alone are counted as FLOPs."""

    def steps(x, w):
        return jax.lax.fori_loop(0, 5, lambda _, x: jnp.tanh(x @ w), x)

    x, w = jnp.ones((64, 128)), jnp.ones((128, 128))
    text = jax.jit(steps).lower(x, w).compile().as_text()
    found = pieces.pieces(text)
    assert sum(one.times * one.flops for one in found) == 5 * 2 * 64 * 128 * 128
    moved = sum(one.times * one.bytes for one in found)
    least = 5 * 4 * (2 * 64 * 128 + 128 * 128)
    assert least <= moved < 3 * least


def test_the_page(tmp_path):
    config = ExperimentConfig.from_dict({'name': 'x', 'train': {'global_batch_size': 8}})
    found = build.Compiled(
        devices=2, mesh={'data': 2, 'fsdp': 1, 'model': 1}, memory=None, refusal='', flops=None,
        flops_by_hand=3e12, bytes_accessed=None, collectives={'all-reduce': hlo.Traffic(1, 2)},
        kernels=0, seconds=3, text=PROGRAM,
    )  # fmt: skip
    about = {'date': '2026-01-01', 'versions': 'jax 1', 'commit': 'abc', 'command': 'make aot'}
    for _ in range(2):  # the same command again takes the place of its entry
        entry = roofline.record(config, targets.find('h100:2'), found, about)
        roofline.add(tmp_path / 'made/roofline', entry)
    (kept,) = json.loads((tmp_path / 'made/roofline.json').read_text())
    assert kept['rows'] == 4
    assert set(kept['bounds']) == {'h100, maker', 'H200, measured ceilings'}
    for one in kept['bounds'].values():
        assert one['steps_per_second'] == pytest.approx(1 / one['seconds'])
    page = (tmp_path / 'made/roofline.md').read_text()
    assert page.count('## x, bfloat16, attention=auto, 4 rows, h100:2') == 1
    assert '`__gpu$xla.gpu.triton`' in page
