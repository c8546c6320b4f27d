"""The two Triton kernels of the TTFS pair: a program runs one window of a tile of neurons, rows (n, c), columns l.

``p_`` pointer, ``o_`` offset, ``i_`` index, ``g`` gradient. Steps run in groups of ``UNROLL``, so that their loads are
in flight together; steps beyond the window's end are masked.
"""

# Annotations are read by Triton: no postponed evaluation here.
import triton
import triton.language as tl


@triton.jit
def _tile(N, C, L, blocks_r, blocks_l, WIDE: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_L: tl.constexpr):
    """Window, rows, columns and which of them exist."""
    i_program = tl.program_id(0)
    i_l = i_program % blocks_l
    i_r = i_program // blocks_l % blocks_r
    w = i_program // blocks_l // blocks_r
    r = i_r * BLOCK_R + tl.arange(0, BLOCK_R)
    l = i_l * BLOCK_L + tl.arange(0, BLOCK_L)  # noqa: E741
    if WIDE:
        r, l = r.to(tl.int64), l.to(tl.int64)  # noqa: E741
    mask = (r < N * C)[:, None] & (l < L)[None, :]
    return w.to(tl.int64), i_r, i_l, r, l, mask


@triton.jit
def _divide(a, b, DTYPE: tl.constexpr):
    """Rounded as the reference's division; the plain one is approximate in float32."""
    if DTYPE.is_fp32():
        return tl.div_rn(a, b)
    return a / b


@triton.jit
def _scales(p_windows, T, DTYPE: tl.constexpr):
    """The factors of charges and of potentials, the window, and the slope in the gradient of the potential."""
    steps = tl.cast(T, DTYPE)
    one = tl.full((), 1.0, DTYPE)
    window = tl.load(p_windows + 1)
    charge = _divide(tl.load(p_windows), 2 * steps, DTYPE)
    rate = _divide(one, window, DTYPE) * steps  # the reference has T / R as (1 / R) T
    slope = _divide(one, window, DTYPE) * 2
    if T > 1:
        slope = _divide(one, (steps - 1) * window, DTYPE) * steps
    return charge, rate, window, slope


@triton.jit(do_not_specialize=["T", "N", "C", "blocks_r"])
def forward_kernel(
    p_x, p_bias, p_windows, p_s, p_potentials,
    T, N, C, L, stride_t, stride_n, stride_c, stride_l, bias_c, bias_l, blocks_r, blocks_l,
    DTYPE: tl.constexpr, WIDE: tl.constexpr, UNROLL: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    w, i_r, i_l, r, l, mask = _tile(N, C, L, blocks_r, blocks_l, WIDE, BLOCK_R, BLOCK_L)  # noqa: E741
    M = tl.cast(N, tl.int64) * C * L
    charge, rate, window, slope = _scales(p_windows, T, DTYPE)
    o_x = (r // C * stride_n + r % C * stride_c)[:, None] + (l * stride_l)[None, :]
    o_out = (r * L)[:, None] + l[None, :]
    p_x += w * T * stride_t
    end = tl.where(mask, T, 0)  # lanes without a neuron end before they start
    total = tl.zeros([BLOCK_R, BLOCK_L], DTYPE)
    for start in range(0, T, UNROLL):
        for i in tl.static_range(UNROLL):
            k = start + i
            x = tl.load(p_x + tl.cast(k, tl.int64) * stride_t + o_x, mask=k < end, other=0.0)
            total = total + x.to(DTYPE) * tl.cast(2 * (T - k) - 1, DTYPE)
    potential = total * charge
    if p_bias is not None:
        o_bias = (r % C * bias_c)[:, None] + (l * bias_l)[None, :]
        potential = potential + tl.load(p_bias + o_bias, mask=mask, other=0.0)
    tl.store(p_potentials + w * M + o_out, potential, mask=mask)
    level = potential * rate
    p_s += w * T * M
    spike = tl.where(level > tl.cast(T - 1, DTYPE), 1.0, 0.0).to(DTYPE)  # the first step takes what is above the window
    spike = tl.where(level == level, spike, level)  # and passes NaN on
    tl.store(p_s + o_out, spike.to(p_s.dtype.element_ty), mask=mask)
    for start in range(1, T, UNROLL):
        for i in tl.static_range(UNROLL):
            k = start + i
            below = tl.cast(T - k - 1, DTYPE)
            fires = (level > below) & (level <= below + 1)  # ceil(level) == T - k
            tl.store(p_s + k * M + o_out, tl.where(fires, 1.0, 0.0).to(p_s.dtype.element_ty), mask=k < end)


@triton.jit(do_not_specialize=["T", "N", "C", "blocks_r"])
def backward_kernel(
    p_gs, p_windows, p_potentials, p_g_potentials, p_gx, p_sums,
    T, N, C, L, stride_t, stride_n, stride_c, stride_l, blocks_r, blocks_l,
    ALONG_L: tl.constexpr,
    DTYPE: tl.constexpr, WIDE: tl.constexpr, UNROLL: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """Gradient of x; for the bias a tile's sums of its columns (``ALONG_L``: the bias varies along them) or rows."""
    w, i_r, i_l, r, l, mask = _tile(N, C, L, blocks_r, blocks_l, WIDE, BLOCK_R, BLOCK_L)  # noqa: E741
    M = tl.cast(N, tl.int64) * C * L
    charge, rate, window, slope = _scales(p_windows, T, DTYPE)
    o_gs = (r // C * stride_n + r % C * stride_c)[:, None] + (l * stride_l)[None, :]
    o_out = (r * L)[:, None] + l[None, :]
    p_gs += w * T * stride_t
    g = tl.load(p_gs + o_gs, mask=mask, other=0.0).to(DTYPE)
    if T > 1:
        g = g - tl.load(p_gs + tl.cast(T - 1, tl.int64) * stride_t + o_gs, mask=mask, other=0.0).to(DTYPE)
    end = tl.where(mask, T, 0)
    potential = tl.load(p_potentials + w * M + o_out, mask=mask, other=0.0)
    g = g * tl.where((potential > 0) & (potential <= window), slope, 0.0)
    if p_g_potentials is not None:
        g = g + tl.load(p_g_potentials + w * M + o_out, mask=mask, other=0.0)
    p_gx += w * T * M
    for start in range(0, T, UNROLL):
        for i in tl.static_range(UNROLL):
            k = start + i
            gx = g * (tl.cast(2 * (T - k) - 1, DTYPE) * charge)
            tl.store(p_gx + k * M + o_out, gx.to(p_gx.dtype.element_ty), mask=k < end)
    if p_sums is not None:
        g = tl.where(mask, g, 0.0)
        if ALONG_L:
            tl.store(p_sums + (w * blocks_r + i_r) * L + l, tl.sum(g, 0), mask=l < L)
        else:
            tl.store(p_sums + (w * N * C + r) * blocks_l + i_l, tl.sum(g, 1), mask=r < N * C)
