"""Convolutions of pictures (n, height, width, channels) whose derivatives of every order are quick on a CPU too.

A convolution is linear in its picture and in its kernel. The derivatives of it and of its two adjoints are these three
again, so three quick maps suffice for slopes and for the slopes of slopes. Left to itself JAX derives an adjoint as a
convolution of a picture with holes, for which a CPU has no quick code: 60 ms in place of 0.5.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from gentrain.sharding import platform

Pixels = Float[Array, "n _ _ _"]
Kernel = Float[Array, "_ _ inputs outputs"]
FEW = 4  # channels that a CPU's convolutions waste its vectors on
NARROW = 16  # channels that fill half of what a CPU's matmuls work on at once
UNROLLED = 4  # convolutions that are compiled one by one; of more the compiler would take long
Bilinear = Callable[[Array, Array], Array]


def convolve(x: Pixels, kernel: Kernel) -> Pixels:
    """A convolution of zero padding that keeps the resolution; its kernel's sides are odd."""
    height, width, inputs, outputs = kernel.shape
    if height == width == 1:
        return pointwise(x, kernel)
    if platform() == "cpu" and min(inputs, outputs) <= FEW:
        return (from_few if inputs <= outputs else to_few)(x, kernel)
    return _convolve(x, kernel)


def _convolve(x: Pixels, kernel: Kernel, stride: int = 1, groups: int = 1, pad: int | None = None) -> Pixels:
    """pad: zeros around the picture; by default as many as keep, or by the stride divide, the resolution."""
    pads = [((side - 1) // 2 if pad is None else pad,) * 2 for side in kernel.shape[:2]]
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=dimensions, feature_group_count=groups
    )


def pointwise(x: Pixels, kernel: Kernel) -> Pixels:
    """A convolution of 1x1, as one matmul of all pixels; so its kernel's gradient is one too, of no transposed copy."""
    return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])


def from_few(x: Pixels, kernel: Kernel) -> Pixels:
    """A convolution of few inputs: the picture moved to each tap's place, pixels last, then one matmul."""
    shape = x.shape[:-1]
    height, width, _, outputs = kernel.shape
    taps = jnp.stack([*moved(jnp.moveaxis(x, -1, 0), (height, width), first=2)])
    y = jnp.einsum("kp,ko->po", taps.reshape(-1, math.prod(shape)), kernel.reshape(-1, outputs))
    return y.reshape(*shape, outputs)


def to_few(x: Pixels, kernel: Kernel) -> Pixels:
    """A convolution of few outputs: one matmul makes what each tap gives, which is then moved to its place."""
    height, width, inputs, outputs = kernel.shape
    given = x.reshape(-1, inputs) @ jnp.moveaxis(kernel, 2, 0).reshape(inputs, -1)
    given = given.reshape(*x.shape[:-1], height * width, outputs)
    taps = moved(given, (height, width), first=1)
    return functools.reduce(jnp.add, [tap[..., number, :] for number, tap in enumerate(taps)])


def moved(x: Array, sides: tuple[int, int], first: int) -> Iterator[Array]:
    """x, whose rows and columns are dimensions first and first + 1, as each tap of a kernel sees it, row by row."""
    pads = [(0, 0)] * x.ndim
    pads[first : first + 2] = [((side - 1) // 2,) * 2 for side in sides]
    padded = jnp.pad(x, pads)
    for row, column in itertools.product(*map(range, sides)):
        rows = lax.slice_in_dim(padded, row, row + x.shape[first], axis=first)
        yield lax.slice_in_dim(rows, column, column + x.shape[first + 1], axis=first + 1)


def with_adjoints(apply: Bilinear, spread: Bilinear, weigh: Bilinear) -> tuple[Bilinear, Bilinear, Bilinear]:
    """The three, each with the others as its derivatives.

    They are one trilinear form: <y, apply(x, kernel)> = <x, spread(y, kernel)> = <kernel, weigh(x, y)>.
    """

    def differentiable(function: Bilinear, by_first: Callable, by_second: Callable) -> Bilinear:
        wrapped = jax.custom_vjp(function)
        wrapped.defvjp(
            lambda *given: (wrapped(*given), given),
            lambda given, slope: (by_first(*given, slope), by_second(*given, slope)),
        )
        return wrapped

    applied = differentiable(apply, lambda x, kernel, y: spread_(y, kernel), lambda x, kernel, y: weigh_(x, y))
    spread_ = differentiable(spread, lambda y, kernel, x: applied(x, kernel), lambda y, kernel, x: weigh_(x, y))
    weigh_ = differentiable(weigh, lambda x, y, kernel: spread_(y, kernel), lambda x, y, kernel: applied(x, kernel))
    return applied, spread_, weigh_


def adjoint(function: Callable, shape: tuple[int, ...], y: Array) -> Array:
    """The adjoint at y of a linear function of arrays of this shape."""
    return jax.linear_transpose(function, jax.ShapeDtypeStruct(shape, y.dtype))(y)[0]


def _halve(x: Pixels, kernel: Kernel) -> Pixels:
    return _convolve(x, kernel, stride=2)


def _unhalve(y: Pixels, kernel: Kernel) -> Pixels:
    n, height, width, _ = y.shape
    if platform() == "cpu" and kernel.shape[2] <= NARROW:
        return _by_phases(y, kernel)
    return adjoint(lambda x: _halve(x, kernel), (n, 2 * height, 2 * width, kernel.shape[2]), y)


def _by_phases(y: Pixels, kernel: Kernel) -> Pixels:
    """_unhalve by one convolution of 2x2 that makes the pixels 2i and 2i + 1 of rows and of columns, then interleaved.

    Of few channels it is quicker: a matmul with four times as many columns.
    """
    n, height, width, channels = y.shape
    turned = kernel[::-1, ::-1].swapaxes(2, 3).reshape(2, 2, 2, 2, channels, -1)
    phases = turned.transpose(0, 2, 4, 1, 3, 5).reshape(2, 2, channels, -1)
    x = _convolve(y, phases, pad=1).reshape(n, height + 1, width + 1, 2, 2, -1)
    rows = jnp.stack([x[:, :-1, :, 0], x[:, 1:, :, 1]], axis=2)
    both = jnp.stack([rows[:, :, :, :-1, 0], rows[:, :, :, 1:, 1]], axis=4)
    return both.reshape(n, 2 * height, 2 * width, -1)


def _weigh_halves(x: Pixels, y: Pixels) -> Kernel:
    return adjoint(lambda kernel: _halve(x, kernel), (4, 4, x.shape[-1], y.shape[-1]), y)


halve, unhalve, _ = with_adjoints(_halve, _unhalve, _weigh_halves)  # by a kernel of 4x4; height and width are even


def double(x: Pixels, kernel: Kernel) -> Pixels:
    """The transposed convolution of 4x4, stride 2: pixel 2i + p sees the pixels i - 1 + p and i + p, p = 0 or 1."""
    return unhalve(x, kernel[::-1, ::-1].swapaxes(2, 3))


def widen(kernel: Kernel) -> Kernel:
    """The kernel of 4x4 that is one of 3x3 and then sums over 2x2 pixels.

    convolve(every pixel as 2x2 pixels, kernel) = double(x, widen(kernel)), and the means over 2x2 pixels of
    convolve(x, kernel) are halve(x, widen(kernel)) / 4, at 4/9 of the cost.
    """
    for axis in (0, 1):
        zero = jnp.zeros_like(lax.slice_in_dim(kernel, 0, 1, axis=axis))
        kernel = jnp.concatenate([kernel, zero], axis) + jnp.concatenate([zero, kernel], axis)
    return kernel


def as_convolution(function: Bilinear) -> Any:
    """In the place of lax.conv_general_dilated in a layer of Flax."""
    return lambda x, kernel, *_, **options: function(x, kernel)


def grouped(x: Pixels, kernel: Kernel) -> Pixels:
    """A convolution within groups of channels, as many to a group as the kernel has inputs; outputs are as many."""
    size = kernel.shape[2]
    groups = x.shape[-1] // size
    # Elsewhere there is quick code for groups, and for the derivatives that JAX itself writes.
    quick = groups == 1 or platform() != "cpu"
    return _convolve(x, kernel, groups=groups) if quick else _in_groups_of(size)(x, kernel)


@functools.cache
def _in_groups_of(size: int) -> Bilinear:
    return with_adjoints(_by_pairs, _spread_groups, functools.partial(_weigh_groups, size))[0]


def _by_pairs(x: Pixels, kernel: Kernel) -> Pixels:
    """Two groups at once, by a kernel with zeros between them: half as many convolutions, of a better size."""
    size, channels = kernel.shape[2:]
    pairs, paired = channels // (2 * size), channels - channels % (2 * size)
    own = kernel[..., :paired].reshape(*kernel.shape[:3], pairs, 2, size)
    both = jnp.einsum("hwipgo,gf->hwfipgo", own, jnp.eye(2, dtype=kernel.dtype))
    given = x[..., :paired], both.reshape(*kernel.shape[:2], 2 * size, paired)
    if pairs > UNROLLED:
        by_pair = lax.map(lambda pair: _convolve(*pair), tuple(jnp.stack(jnp.split(each, pairs, -1)) for each in given))
        parts = [jnp.moveaxis(by_pair, 0, -2).reshape(*x.shape[:-1], paired)]
    else:
        parts = [_convolve(*pair) for pair in zip(*(jnp.split(each, pairs, -1) for each in given), strict=True)]
    if paired < channels:
        parts.append(_convolve(x[..., paired:], kernel[..., paired:]))
    return jnp.concatenate(parts, axis=-1)


def _spread_groups(y: Pixels, kernel: Kernel) -> Pixels:
    """By each group's kernel turned round, with inputs and outputs exchanged."""
    height, width, size, channels = kernel.shape
    turned = kernel[::-1, ::-1].reshape(height, width, size, -1, size)
    return _by_pairs(y, turned.transpose(0, 1, 4, 3, 2).reshape(height, width, size, channels))


def _weigh_groups(size: int, x: Pixels, y: Pixels) -> Kernel:
    groups, shape = x.shape[-1] // size, (3, 3, size, size)
    if groups <= 2 * UNROLLED:
        own = zip(jnp.split(x, groups, -1), jnp.split(y, groups, -1), strict=True)
        return jnp.concatenate([adjoint(functools.partial(_convolve, a), shape, b) for a, b in own], axis=-1)
    rows = (-1, groups, size)
    taps = [jnp.einsum("pgi,pgo->igo", tap.reshape(rows), y.reshape(rows)) for tap in moved(x, (3, 3), first=1)]
    return jnp.stack(taps).reshape(3, 3, size, -1)
