"""Spectral normalisation: no matrix of a network stretches a vector (Miyato et al., 2018)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gentrain.models.base import Params
from gentrain.sharding import path_name

Vectors = dict[str, Float[Array, "stack outputs"]]  # u of each kernel, by its path
Kernels = Float[Array, "stack inputs outputs"]


def initial_vectors(params: Params, key: Array) -> Vectors:
    """A random unit vector for each kernel."""
    vectors = {}
    for number, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        if path_name(path).rsplit("/")[-1] == "kernel":
            stack, _, outputs = matrices(leaf).shape
            vectors[path_name(path)] = unit(jax.random.normal(jax.random.fold_in(key, number), (stack, outputs)))
    return vectors


def normalise(params: Params, vectors: Vectors) -> Params:
    """W / max(1, s), s = v' W u an estimate of the largest singular value, v = W u / |W u|; u and v have no gradient.

    W / s would have the same bound of 1, but no value at a matrix of zeros, where the last one of a critic starts.
    """

    def divide(path, leaf):
        if (u := vectors.get(path_name(path))) is None:
            return leaf
        kernel = matrices(leaf)
        v = jax.lax.stop_gradient(left_vectors(kernel, u))
        size = jnp.einsum("si,sio,so->s", v, kernel, u)
        return (kernel / jnp.maximum(size, 1)[:, None, None]).reshape(leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(divide, params)


def refresh(params: Params, vectors: Vectors, rounds: int = 1) -> Vectors:
    """The vectors after some rounds of power iteration: u = W' v / |W' v|."""
    kernels = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}

    def iterate(path, u):
        kernel = jax.lax.stop_gradient(matrices(kernels[path]))
        for _ in range(rounds):
            product = jnp.einsum("sio,si->so", kernel, left_vectors(kernel, u))
            u = jnp.where(jnp.any(product != 0, axis=-1, keepdims=True), unit(product), u)
        return u

    return {path: iterate(path, u) for path, u in vectors.items()}


def matrices(kernel: Float[Array, "..."]) -> Kernels:
    """A kernel as matrices: three dimensions are stacked layers of them, four are a convolution."""
    stack = kernel.shape[0] if kernel.ndim == 3 else 1
    return kernel.astype(jnp.float32).reshape(stack, -1, kernel.shape[-1])


def left_vectors(kernel: Kernels, u: Float[Array, "stack outputs"]) -> Float[Array, "stack inputs"]:
    """W u / |W u|."""
    return unit(jnp.einsum("sio,so->si", kernel, u))


def unit(x: Float[Array, "stack n"]) -> Float[Array, "stack n"]:
    """x / |x|, and 0 at 0."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
