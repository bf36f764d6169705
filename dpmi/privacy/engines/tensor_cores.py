"""Sums and norms on tensor cores (TF32), and what their rounding may add to an example.

A tensor core multiplies numbers of 11 significant bits, several times as fast as float32 is
multiplied elsewhere, and adds the products in float32. Under bfloat16, whose numbers have 8 bits,
inputs x and output gradients a of a layer are exact there, and so are the products in their Gram
matrices. Not exact are the output gradients times the clip factor, w = f a, of which the sum of a
batch is made. They are rounded here, to the nearest, before a kernel rounds or cuts them off in
its own way: w = f a (1 + η) with |η| <= UNIT for each value.

**The bound.** An example's gradient of one layer is g = Σ_t a_t ⊗ x_t, over its positions t. With
rounded factors it contributes f (g + e), where e = Σ_t (η_t a_t) ⊗ x_t. That is not within UNIT of
f g: positions may cancel in g, and not in e. By the triangle inequality, and since
||u ⊗ v|| = ||u|| ||v||,

    ||e|| <= Σ_t ||η_t a_t|| ||x_t|| <= UNIT s   with   s = Σ_t ||a_t|| ||x_t||,

s being what ||g|| would be if nothing cancelled. (In a convolution x_t is the patch at t; its
groups are layers of their own.) Nor is ||g|| known exactly:
||g||² = Σ_{t,t'} <x_t, x_t'> <a_t, a_t'>, and n products added in float32 in any order, rounded or
cut off, are off by at most n 2^-23 Σ|products| (Higham 2002, "Accuracy and Stability of Numerical
Algorithms", section 3.1), which is at most n 2^-23 ||x_t|| ||x_t'||. With the products of both
matrices and of the last sum, :func:`measuring_error` n' 2^-23 s² bounds the error of ||g||².

So a layer says ||g||² + n' 2^-23 s² in place of ||g||², and UNIT s as its ``rounding``; and

    f = min(1, C / (sqrt(Σ_l (||g_l||² + n' 2^-23 s_l²)) + sqrt(Σ_l (UNIT s_l)²)))

over all layers l gives ||f (g + e)|| <= f (||g|| + ||e||) <= C: what is executed moves the sum by
at most C. Where f = 1 nothing is rounded, for a has 8 bits and the scale of the sums is a power of
two. What is left (float32's rounding of norms and factors, and of sums over a batch) is in the
plan's allowance, ``dpmi.privacy.plan.ROUNDING``, as it is without tensor cores.

Measured on ResNet-18 at 64 and 224 pixels, s is 1.7 to 2.9 times the norm over all layers: an
example contributes 0.1 to 0.2 % less than C.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

# Rounded to the nearest of 11 bits, after float32 rounded f a; and 2^-8 of it for s itself, which
# is made in float32, or by TF32 kernels, of numbers that are not negative.
UNIT = 2.0**-11 + 2.0**-19
_LOST_BITS = 13  # of float32's 24
_LAST_SUM = 64  # additions on a value's way through torch's reductions, which are trees


def suit(x: Tensor, grad_output: Tensor) -> bool:
    """Whether the sums of a layer with these are made on tensor cores."""
    return x.is_cuda and x.dtype == grad_output.dtype == torch.bfloat16


def rounded(w: Tensor) -> Tensor:
    """Float32 to the nearest numbers of 11 significant bits, which TF32 leaves as they are."""
    half, below = 1 << (_LOST_BITS - 1), (1 << _LOST_BITS) - 1
    return (w.view(torch.int32) + half).bitwise_and_(~below).view(torch.float32)


def measuring_error(products: int, s: Tensor) -> Tensor:
    """Bound of the error of a squared norm from Gram matrices.

    Args:
        products: added up in an element of one matrix, and in one of the other.
        s: (B,) as in the bound above.
    """
    return (products + _LAST_SUM) * 2.0**-23 * s.square()


@contextlib.contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Let kernels round what they multiply in float32 to 11 bits, or keep them from it.

    cuDNN's do so by default.
    """
    cudnn, cublas = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, cublas.allow_tf32
    cudnn.allow_tf32 = cublas.allow_tf32 = allowed
    try:
        yield
    finally:
        cudnn.allow_tf32, cublas.allow_tf32 = before
