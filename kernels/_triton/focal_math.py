"""Device functions: the focal loss of a cell and its gradient, from the exponentials of its logits.

With m the largest logit, e_c = exp(z_c - m) and `others` the sum of e_c over c != t:

    q    = 1 - p_t     = others / (others + e_t)
    ce   = -log p_t    = (m - z_t) + log1p(others + (e_t - 1))
    L    = w q^gamma ce
    s    = -dL/dlog p_t = w q^gamma (1 + gamma p_t ce / q)
    dL/dz_c = s p_c for c != t, and -s q for c = t

Neither q nor ce is a difference of nearly equal numbers, however sure the model is.
"""

from __future__ import annotations

import triton
import triton.language as tl

LARGEST = tl.constexpr(3.4e38)
SMALLEST = tl.constexpr(1.1754944e-38)


@triton.jit
def log1p(x):
    """Return log(1 + x) for x >= 0; the quotient takes out what rounding 1 + x cost (Goldberg 1991, theorem 4)."""
    u = 1.0 + x
    exact = u == 1.0
    return tl.where(exact, x, tl.log(u) * (x / tl.where(exact, 1.0, u - 1.0)))


@triton.jit
def power(miss, gamma, GAMMA: tl.constexpr):
    """Return miss^gamma; GAMMA is gamma where that is 0, 1 or 2, and -1 for any other."""
    if GAMMA == 0:
        return tl.where(miss == miss, 1.0, miss)
    elif GAMMA == 1:
        return miss
    elif GAMMA == 2:
        return miss * miss
    else:
        return tl.exp2(gamma * tl.log2(miss))


@triton.jit
def loss_and_slope(top, z_t, e_t, others, weight, gamma, GAMMA: tl.constexpr):
    """Return the loss of each cell, s and q as above, and 1 / (others + e_t)."""
    inverse = 1.0 / (others + e_t)
    miss = others * inverse
    ce = (top - z_t) + log1p(others + (e_t - 1.0))
    focus = weight * power(miss, gamma, GAMMA)
    # p_t ce / q is 0 where p_t is 0, and meaningless where q is 0, for focus or gamma is 0 there
    ratio = e_t * inverse * tl.minimum(ce, LARGEST) / tl.maximum(miss, SMALLEST)
    return focus * ce, focus * (1.0 + gamma * ratio), miss, inverse
