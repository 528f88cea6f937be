"""Spectral normalisation: no matrix of a network stretches a vector (Miyato et al., 2018)."""

from typing import Any

import jax
import jax.numpy as jnp

from gentrain.sharding import path_name

Params = Any  # nested dict of arrays


def start(params: Params, key: jax.Array) -> dict[str, jax.Array]:
    """A random unit vector for each kernel, by its path: (stack, outputs)."""
    found = {}
    for number, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        if path_name(path).rsplit("/")[-1] == "kernel":
            stack, _, outputs = matrices(leaf).shape
            found[path_name(path)] = unit(jax.random.normal(jax.random.fold_in(key, number), (stack, outputs)))
    return found


def normalised(params: Params, vectors: dict[str, jax.Array]) -> Params:
    """W / max(1, s), s = v' W u an estimate of the largest singular value, v = W u / |W u|; u and v have no gradient.

    The same bound of 1 as W / s, which has no value at a matrix of zeros, where the last of a critic starts.
    """

    def divided(path, leaf):
        if (u := vectors.get(path_name(path))) is None:
            return leaf
        kernel = matrices(leaf)
        v = jax.lax.stop_gradient(left(kernel, u))
        size = jnp.einsum("si,sio,so->s", v, kernel, u)
        return (kernel / jnp.maximum(size, 1)[:, None, None]).reshape(leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(divided, params)


def refreshed(params: Params, vectors: dict[str, jax.Array], rounds: int = 1) -> dict[str, jax.Array]:
    """The vectors after some rounds of power iteration: u = W' v / |W' v|."""
    kernels = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def moved(path, u):
        kernel = jax.lax.stop_gradient(matrices(kernels[path]))
        for _ in range(rounds):
            found = jnp.einsum("sio,si->so", kernel, left(kernel, u))
            u = jnp.where(jnp.any(found != 0, axis=-1, keepdims=True), unit(found), u)
        return u

    return {path: moved(path, u) for path, u in vectors.items()}


def matrices(kernel: jax.Array) -> jax.Array:
    """(stack, inputs, outputs): three dimensions are stacked layers of matrices, four are a convolution."""
    stack = kernel.shape[0] if kernel.ndim == 3 else 1
    return kernel.astype(jnp.float32).reshape(stack, -1, kernel.shape[-1])


def left(kernel: jax.Array, u: jax.Array) -> jax.Array:
    return unit(jnp.einsum("sio,so->si", kernel, u))


def unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
