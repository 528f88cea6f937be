"""Divergences between a data distribution P and a model distribution Q, in nats, as plain functions of arrays.

Numpy arrays give numpy float64 values, for exact work. JAX arrays give JAX values, and the functions are safe under
jit, vmap and grad. Concrete arrays are checked, and a ValueError says what is wrong with them. Traced arrays are not
checked. `real_prior` is pi, the weight on P in the mixture M = pi P + (1 - pi) Q.

kl_js: distributions (*batch, support)
    entropy                      H[P] = -sum P log P
    kl                           KL[P||Q] = sum P log P/Q
    js                           JS_pi[P||Q] = pi KL[P||M] + (1 - pi) KL[Q||M]
    normalised_js                JN_pi[P||Q] = JS_pi / (pi (1 - pi)), which is KL[P||Q] at pi = 0 and KL[Q||P] at 1
    frontier_integral            FI = 2 int_0^1 JS_pi dpi
    mauve_curve                  (KL[P||M_pi], KL[Q||M_pi]) over pi
    kl_from_log                  KL[P||Q] from log-probabilities
    normalised_js_from_logits    JN_pi[softmax(a)||softmax(b)] from logits

information: joint tables, one axis a symbol
    position_marginals           P_t(x_t) = sum over all other axes
    total_correlation            TC = KL[P || prod_t P_t]
    mutual_information           I(x; y) = KL[P || P_x P_y]
    lautum_information           L(x; y) = KL[P_x P_y || P]

sequences: tables (V,) * N, one number a step
    js_by_steps                  E_{x_<t ~ M} JS_{w_t}[P(.|x_<t) || Q(.|x_<t)], w_t = pi P(x_<t) / M(x_<t)
    token_js                     E_{x_<t} JS_pi[P(.|x_<t) || Q(.|x_<t)]
    token_kl                     E_{x_<t} KL[P(.|x_<t) || Q(.|x_<t)]

critics: JS_pi as an f-divergence
    f_js                         f_pi(u) = pi u log u - (1 - pi + pi u) log(1 - pi + pi u), JS_pi = E_Q f_pi(P/Q)
    js_conjugate                 f*_pi(t) = (1 - pi) log[(1 - pi) / (1 - pi exp(t / pi))]
    js_activation                T(v) = -pi log pi - log(1 + exp(-v)), the domain of f*_pi
    optimal_logit                l* = log(pi / (1 - pi)) + log P/Q

monte_carlo: log-densities at samples (*batch, samples)
    Estimate                     a mean and its standard error
    monte_carlo_kl               E_P log P/Q
    monte_carlo_js               pi E_P log P/M + (1 - pi) E_Q log Q/M

arrays: helpers that these files share, with the identity behind their exactness
"""

from gentrain.divergences.arrays import AnyArray, Law, Prior, Table, Values
from gentrain.divergences.critics import f_js, js_activation, js_conjugate, optimal_logit
from gentrain.divergences.information import (
    lautum_information,
    mutual_information,
    position_marginals,
    total_correlation,
)
from gentrain.divergences.kl_js import (
    entropy,
    frontier_integral,
    js,
    kl,
    kl_from_log,
    mauve_curve,
    normalised_js,
    normalised_js_from_logits,
)
from gentrain.divergences.monte_carlo import Estimate, monte_carlo_js, monte_carlo_kl
from gentrain.divergences.sequences import Prefixes, js_by_steps, token_js, token_kl

__all__ = [
    "AnyArray",
    "Estimate",
    "Law",
    "Prefixes",
    "Prior",
    "Table",
    "Values",
    "entropy",
    "f_js",
    "frontier_integral",
    "js",
    "js_activation",
    "js_by_steps",
    "js_conjugate",
    "kl",
    "kl_from_log",
    "lautum_information",
    "mauve_curve",
    "monte_carlo_js",
    "monte_carlo_kl",
    "mutual_information",
    "normalised_js",
    "normalised_js_from_logits",
    "optimal_logit",
    "position_marginals",
    "token_js",
    "token_kl",
    "total_correlation",
]
