"""The two Triton kernels of the soma-dendrite pair: the whole sequence in one launch each, states in registers.

Time runs in segments of ``S.segment`` unrolled steps whose inputs are all loaded first, so that many loads are in
flight. The backward kernel recomputes: nothing is saved between the passes. A sequence of one segment is recomputed in
registers; a longer one first runs forward and leaves the states at the segments' starts in a scratch buffer. That
belongs to the program, not to the neuron, so it stays small and in the L2 cache. Programs walk over several blocks of
neurons and keep their parameter gradients in registers; the partial sums are added up afterwards in a fixed order.
"""

# Annotations are read by Triton: no postponed evaluation here.
import triton
import triton.language as tl

from .functions import advance, choose, load_branches, load_parameters, retreat, store_branches


@triton.jit
def _lanes(i_c, i_j, N, C, L, J, S: tl.constexpr):
    """Which neurons the lanes are: channel c, batch entry n, position, all within bounds, and whether they exist.

    A lane beyond the end repeats an existing neuron: its loads are in bounds and its potentials finite.
    """
    BLOCK: tl.constexpr = S.block
    BLOCK_C: tl.constexpr = S.block_c
    BLOCK_J: tl.constexpr = S.block // S.block_c
    lane = tl.arange(0, BLOCK)
    if S.wide:
        lane = lane.to(tl.int64)
    if S.channels_fast:
        c = i_c * BLOCK_C + lane % BLOCK_C
        j = i_j * BLOCK_J + lane // BLOCK_C
    else:
        c = i_c * BLOCK_C + lane // BLOCK_J
        j = i_j * BLOCK_J + lane % BLOCK_J
    mask = (c < C) & (j < J)
    return tl.minimum(c, C - 1), tl.minimum(j // L, N - 1), j % L, mask


@triton.jit
def _input_offset(n, c, position, stride_n, stride_c, stride_l, S: tl.constexpr):
    """Offset of a neuron's first input. Packed strides count neurons: the compiler then sees aligned tiles."""
    offset = n * stride_n + c * stride_c + position * stride_l
    if S.packed_x:
        offset = offset * S.fan
    return offset


@triton.jit
def _load_segment(p_x, offset, start, T, stride_t, stride_b, S: tl.constexpr):
    """The inputs of every step of a segment. Steps beyond the end repeat the last one."""
    FAN: tl.constexpr = S.fan
    SEGMENT: tl.constexpr = S.segment
    xs = ()
    for i in tl.static_range(SEGMENT):
        t = start + i
        if not S.even:
            t = tl.minimum(t, T - 1)
        o_t = tl.cast(t, tl.int64) * stride_t
        if S.packed_x:
            o_t = o_t * FAN
        xs = xs + (load_branches(p_x + o_t, offset, stride_b, FAN, S.packed_x, S),)
    return xs


@triton.jit
def _load_state(p_u, p_v, p_fired, o_state, o_v, L, S: tl.constexpr):
    B: tl.constexpr = S.branches
    if S.fresh:
        o_state = o_state * 0
    u = tl.load(p_u + o_state)
    v = ()
    if S.fresh:
        for _ in tl.static_range(B):
            v = v + (tl.load(p_v + o_state),)
    elif B > 0:
        v = load_branches(p_v, o_v, L, B, S.packed_v, S)
    fired = tl.zeros_like(u)
    if S.fire_once:
        fired = tl.load(p_fired + o_state)
    return u, v, fired


@triton.jit(do_not_specialize=["T", "N", "J"])
def forward_kernel(
    p_x, p_u, p_v, p_fired, p_parameters,
    p_s, p_u_last, p_v_last, p_fired_last, p_trace,
    T, N, C, L, J, M, stride_t, stride_n, stride_c, stride_b, stride_l,
    v_reset: tl.float64, low: tl.float64, high: tl.float64, blocks_c,
    S: tl.constexpr,
):  # fmt: skip
    """Spikes and last states of one block of neurons; ``J = N L`` positions, ``M = N C L`` neurons."""
    B: tl.constexpr = S.branches
    SEGMENT: tl.constexpr = S.segment
    i_program = tl.program_id(0)
    c, n, position, mask = _lanes(i_program % blocks_c, i_program // blocks_c, N, C, L, J, S)
    p = load_parameters(p_parameters, v_reset, low, high, c, S)
    o_x = _input_offset(n, c, position, stride_n, stride_c, stride_l, S)
    o_state = (n * C + c) * L + position
    o_v = (n * C + c) * B * L + position
    o_s = o_state
    if S.channels_fast:
        o_s = (n * L + position) * C + c
    u, v, fired = _load_state(p_u, p_v, p_fired, o_state, o_v, L, S)
    end = tl.where(mask, T, 0)  # lanes without a neuron end before they start
    for start in range(0, T, SEGMENT):
        xs = _load_segment(p_x, o_x, start, T, stride_t, stride_b, S)
        for i in tl.static_range(SEGMENT):
            s, u_new, v_new, fired_new, h, summed = advance(xs[i], u, v, fired, p, S)
            live = mask
            if S.even:
                u, v, fired = u_new, v_new, fired_new
            else:
                live = start + i < end
                u = tl.where(live, u_new, u)
                v = choose(live, v_new, v, B)
                fired = tl.where(live, fired_new, fired)
            o_t = tl.cast(start + i, tl.int64) * M
            tl.store(p_s + o_t + o_s, s.to(p_s.dtype.element_ty), mask=live)
            if p_trace is not None:
                tl.store(p_trace + o_t + o_state, u_new, mask=live)
    tl.store(p_u_last + o_state, u, mask=mask)
    if B > 0:
        store_branches(p_v_last, o_v, L, v, mask, B, S.packed_v)
    if S.fire_once:
        tl.store(p_fired_last + o_state, fired, mask=mask)


@triton.jit
def _backward_segment(
    start, u, v, fired, gu, gv, sums, p, a, b,
    p_x, p_gs, p_g_trace, p_gx,
    o_x, o_gs, o_state, o_gx, mask,
    T, L, M, stride_t, stride_b, stride_gs_t,
    S: tl.constexpr,
):  # fmt: skip
    """Gradients through one segment that starts from u, v, fired at step ``start``; adds to ``sums``."""
    B: tl.constexpr = S.branches
    FAN: tl.constexpr = S.fan
    SUMS: tl.constexpr = S.sums
    SEGMENT: tl.constexpr = S.segment
    stride_gx = L
    if S.channels_fast:
        stride_gx = 1
    xs = _load_segment(p_x, o_x, start, T, stride_t, stride_b, S)
    gss = ()
    end = tl.where(mask, T, 0)
    for i in tl.static_range(SEGMENT):
        live = mask
        if not S.even:
            live = start + i < end
        gs = tl.load(p_gs + tl.cast(start + i, tl.int64) * stride_gs_t + o_gs, mask=live, other=0.0)
        gss = gss + (gs.to(S.dtype),)
    us, vs, fireds, hs, summeds = (u,), (v,), (fired,), (), ()
    for i in tl.static_range(SEGMENT):
        s, u, v, fired, h, summed = advance(xs[i], u, v, fired, p, S)
        us, vs, fireds, hs, summeds = us + (u,), vs + (v,), fireds + (fired,), hs + (h,), summeds + (summed,)
    for i in tl.static_range(SEGMENT - 1, -1, -1):
        t = tl.cast(start + i, tl.int64)
        live = mask
        if not S.even:
            live = start + i < end
        if p_g_trace is not None:
            gu = gu + tl.load(p_g_trace + t * M + o_state, mask=live, other=0.0)
        gx, gu_old, gv_old, added = retreat(
            gss[i], gu, gv, sums, xs[i], summeds[i], us[i], vs[i], vs[i + 1], fireds[i], hs[i], a, b, p, S
        )
        if S.even:
            gu, gv, sums = gu_old, gv_old, added
        else:  # selected, not multiplied by 0: beyond the end anything may be infinite
            gu = tl.where(live, gu_old, gu)
            gv = choose(live, gv_old, gv, B)
            sums = choose(live, added, sums, SUMS)
        store_branches(p_gx + t * M * FAN, o_gx, stride_gx, gx, live, FAN, S.packed_gx)
    return gu, gv, sums


@triton.jit
def _store_checkpoint(p, u, v, fired, S: tl.constexpr):
    B: tl.constexpr = S.branches
    BLOCK: tl.constexpr = S.block
    tl.store(p, u)
    for b in tl.static_range(B):
        tl.store(p + (1 + b) * BLOCK, v[b])
    if S.fire_once:
        tl.store(p + (1 + B) * BLOCK, fired)


@triton.jit
def _load_checkpoint(p, S: tl.constexpr):
    B: tl.constexpr = S.branches
    BLOCK: tl.constexpr = S.block
    u = tl.load(p)
    v = ()
    for b in tl.static_range(B):
        v = v + (tl.load(p + (1 + b) * BLOCK),)
    fired = tl.zeros_like(u)
    if S.fire_once:
        fired = tl.load(p + (1 + B) * BLOCK)
    return u, v, fired


@triton.jit(do_not_specialize=["T", "N", "J", "blocks_j", "chunks"])
def backward_kernel(
    p_x, p_u, p_v, p_fired, p_parameters,
    p_gs, p_gu_last, p_gv_last, p_g_trace, p_gx, p_gu, p_gv, p_sums, p_scratch,
    T, N, C, L, J, M, stride_t, stride_n, stride_c, stride_b, stride_l,
    stride_gs_t, stride_gs_n, stride_gs_c, stride_gs_l,
    v_reset: tl.float64, low: tl.float64, high: tl.float64, surrogate_a: tl.float64, surrogate_b: tl.float64,
    blocks_c, blocks_j, chunks,
    S: tl.constexpr,
):  # fmt: skip
    """All gradients of the blocks ``i_j, i_j + chunks, ...`` of some channels; parameter gradients as partial sums."""
    B: tl.constexpr = S.branches
    FAN: tl.constexpr = S.fan
    SUMS: tl.constexpr = S.sums
    BLOCK: tl.constexpr = S.block
    SEGMENT: tl.constexpr = S.segment
    i_program = tl.program_id(0)
    i_c = i_program % blocks_c
    lane = tl.arange(0, BLOCK)
    c, n, position, mask = _lanes(i_c, 0, N, C, L, J, S)
    p = load_parameters(p_parameters, v_reset, low, high, c, S)
    a = tl.full((), surrogate_a, S.dtype)
    b = tl.full((), surrogate_b, S.dtype)
    sums = ()
    for _ in tl.static_range(SUMS):
        sums = sums + (tl.zeros([BLOCK], S.dtype),)
    segments = (T + SEGMENT - 1) // SEGMENT
    slot: tl.constexpr = S.slots * BLOCK
    for i_j in range(i_program // blocks_c, blocks_j, chunks):
        c, n, position, mask = _lanes(i_c, i_j, N, C, L, J, S)
        o_x = _input_offset(n, c, position, stride_n, stride_c, stride_l, S)
        o_gs = n * stride_gs_n + c * stride_gs_c + position * stride_gs_l
        o_state = (n * C + c) * L + position
        o_v = (n * C + c) * B * L + position
        o_gx = (n * C + c) * FAN * L + position
        if S.channels_fast:
            o_gx = ((n * L + position) * C + c) * FAN
        u, v, fired = _load_state(p_u, p_v, p_fired, o_state, o_v, L, S)
        gu = tl.zeros_like(u)
        if p_gu_last is not None:
            gu = tl.load(p_gu_last + o_state, mask=mask, other=0.0)
        gv = ()
        for k in tl.static_range(B):
            g = tl.zeros_like(u)
            if p_gv_last is not None:
                g = tl.load(p_gv_last + o_v + k * L, mask=mask, other=0.0)
            gv = gv + (g,)
        if S.long:
            p_slots = p_scratch + tl.cast(i_program, tl.int64) * segments * slot + lane
            for i in range(segments - 1):
                _store_checkpoint(p_slots + i * slot, u, v, fired, S)
                xs = _load_segment(p_x, o_x, i * SEGMENT, T, stride_t, stride_b, S)
                for k in tl.static_range(SEGMENT):
                    s, u, v, fired, h, summed = advance(xs[k], u, v, fired, p, S)
            _store_checkpoint(p_slots + (segments - 1) * slot, u, v, fired, S)
            tl.debug_barrier()  # another thread may read what this one wrote
            for i in range(segments):
                i_segment = segments - 1 - i
                u, v, fired = _load_checkpoint(p_slots + i_segment * slot, S)
                gu, gv, sums = _backward_segment(
                    i_segment * SEGMENT, u, v, fired, gu, gv, sums, p, a, b,
                    p_x, p_gs, p_g_trace, p_gx, o_x, o_gs, o_state, o_gx, mask,
                    T, L, M, stride_t, stride_b, stride_gs_t, S,
                )  # fmt: skip
            tl.debug_barrier()  # the next block writes over these checkpoints
        else:
            gu, gv, sums = _backward_segment(
                0, u, v, fired, gu, gv, sums, p, a, b,
                p_x, p_gs, p_g_trace, p_gx, o_x, o_gs, o_state, o_gx, mask,
                T, L, M, stride_t, stride_b, stride_gs_t, S,
            )  # fmt: skip
        if p_gu is not None:
            tl.store(p_gu + o_state, gu, mask=mask)
        if p_gv is not None:
            store_branches(p_gv, o_v, L, gv, mask, B, S.packed_v)
    programs = tl.num_programs(0)
    for k in tl.static_range(SUMS):
        if S.per_channel:
            tl.store(p_sums + (k * programs + i_program) * BLOCK + lane, sums[k])
        else:
            tl.store(p_sums + k * programs + i_program, tl.sum(sums[k]))
