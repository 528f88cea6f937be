"""Sequences of `length` tokens out of `vocab`, whose law is a table, a Markov chain or a hidden Markov chain."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from gentrain.divergences import entropy
from gentrain.errors import ConfigError

MOST_STRINGS = 10**6  # strings that are still enumerated
BLOCK = 2**20  # log-probabilities held at once: 8 MB
VOCAB, LENGTH = 3, 4  # where the config has 0

State = tuple[np.ndarray, ...]  # arrays whose first axis is the example


def log(p: np.ndarray) -> np.ndarray:
    """log p with log 0 = -inf and no warning."""
    with np.errstate(divide="ignore"):
        return np.log(p)


def conditionals(p: np.ndarray) -> list[np.ndarray]:
    """Element t is P(x_t | x_<t), of shape (V,)*(t+1), for a table p of shape (V,)*N.

    A prefix of probability 0 has the position's marginal P(x_t): any law would do, and this one needs no prefix.
    """
    by_position = []
    for t in range(p.ndim):
        joint = p.sum(axis=tuple(range(t + 1, p.ndim)))
        by_position.append(normalise(joint, otherwise=joint.sum(axis=tuple(range(t)))))
    return by_position


def normalise(weights: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """The weights divided by their sum over the last axis; `otherwise` where that is 0."""
    total = weights.sum(-1, keepdims=True)
    return np.where(total > 0, weights / np.where(total > 0, total, 1), otherwise)


def marginal(p: np.ndarray, position: int) -> np.ndarray:
    """The sums (V,) of a table (V,)*N over all other positions."""
    return p.sum(axis=tuple(i for i in range(p.ndim) if i != position))


class SequenceWorld(ABC):
    """A law of sequences as a state machine for many examples at once: the state is what the past tokens leave behind.

    Subclasses give start, log_conditional and advance; all else follows from them, in blocks of examples where vocab is
    large.
    """

    vocab: int
    length: int

    @abstractmethod
    def start(self, n: int) -> State:
        """The state of n examples before their first token."""

    @abstractmethod
    def log_conditional(self, state: State) -> np.ndarray:
        """log P(next token | past), (n, vocab), nats."""

    @abstractmethod
    def advance(self, state: State, tokens: np.ndarray) -> State:
        """The state after these tokens (n,)."""

    @property
    def enumerable(self) -> bool:
        return self.vocab**self.length <= MOST_STRINGS

    def blocks(self, n: int) -> list[slice]:
        """Slices of n examples whose conditionals fit into memory together."""
        rows = max(1, BLOCK // self.vocab)
        return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]

    def sample(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """n independent sequences, (n, length) int32."""
        tokens = np.empty((n, self.length), np.int32)
        for block in self.blocks(n):
            rows = tokens[block]
            state = self.start(len(rows))
            for t in range(self.length):
                if t:
                    state = self.advance(state, rows[:, t - 1])
                cumulative = np.cumsum(np.exp(self.log_conditional(state)), axis=-1)
                # The draw is below the last sum, so rounding can never pick a token of probability 0 at the end.
                draw = rng.random((len(rows), 1)) * cumulative[:, -1:]
                rows[:, t] = np.argmax(cumulative > draw, axis=-1)
        return tokens

    def log_prob(self, tokens: np.ndarray) -> np.ndarray:
        """log P(tokens) of sequences (n, length): (n,), nats."""
        tokens = self.check_tokens(tokens, self.length)
        total = np.zeros(len(tokens))
        for block in self.blocks(len(tokens)):
            rows = tokens[block]
            state = self.start(len(rows))
            for t in range(self.length):
                if t:
                    state = self.advance(state, rows[:, t - 1])
                total[block] += np.take_along_axis(self.log_conditional(state), rows[:, t : t + 1], axis=-1)[:, 0]
        return total

    def next_log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """log P(next token | tokens) for prefixes (n, t < length): (n, vocab), nats."""
        tokens = self.check_tokens(tokens, None)
        state = self.start(len(tokens))
        for t in range(tokens.shape[1]):
            state = self.advance(state, tokens[:, t])
        return self.log_conditional(state)

    def step_log_probs(self, tokens: np.ndarray) -> np.ndarray:
        """log P(x_t = v | x_<t) for all t along sequences (n, length): (n, length, vocab), nats."""
        tokens = self.check_tokens(tokens, self.length)
        log_probs = np.empty((*tokens.shape, self.vocab))
        state = self.start(len(tokens))
        for t in range(self.length):
            if t:
                state = self.advance(state, tokens[:, t - 1])
            log_probs[:, t] = self.log_conditional(state)
        return log_probs

    def probabilities(self) -> np.ndarray:
        """P as a table of shape (vocab,)*length. Raises ConfigError beyond 1e6 strings."""
        if not self.enumerable:
            raise ConfigError(
                f"{self.vocab}^{self.length} strings are too many to enumerate (at most {MOST_STRINGS}): "
                "lower data.world.vocab or data.world.length"
            )
        # One state for each prefix; each grows into `vocab` longer ones.
        state, log_p = self.start(1), np.zeros(1)
        for t in range(self.length):
            if t:
                state = tuple(np.repeat(part, self.vocab, axis=0) for part in state)
                state = self.advance(state, np.tile(np.arange(self.vocab), self.vocab ** (t - 1)))
            log_p = (log_p[:, None] + self.log_conditional(state)).ravel()
        return np.exp(log_p).reshape((self.vocab,) * self.length)

    def entropy(self) -> float:
        """H(P) in nats, by enumeration. Raises ConfigError beyond 1e6 strings: estimate it by -mean(log_prob) there."""
        return float(entropy(self.probabilities().ravel()))

    def check_tokens(self, tokens: np.ndarray, length: int | None) -> np.ndarray:
        """The tokens as an integer array (n, length), or (n, < self.length) for None. Raises ConfigError."""
        tokens = np.asarray(tokens)
        wanted = f"(n, {length})" if length is not None else f"(n, 0 to {self.length - 1})"
        if tokens.ndim != 2 or (tokens.shape[1] != length if length is not None else tokens.shape[1] >= self.length):
            raise ConfigError(f"tokens of shape {tokens.shape} were given to a world that wants {wanted}")
        tokens = tokens.astype(np.int64, casting="same_kind" if tokens.size else "unsafe")
        if tokens.size and not 0 <= tokens.min() <= tokens.max() < self.vocab:
            raise ConfigError(f"tokens from {tokens.min()} to {tokens.max()} are not all in 0..{self.vocab - 1}")
        return tokens


class Table(SequenceWorld):
    """Any law on vocab^length strings, given as its probabilities, an array of shape (vocab,)*length that sums to 1."""

    def __init__(self, probabilities: np.ndarray):
        self.p = np.asarray(probabilities, np.float64)
        self.length, self.vocab = self.p.ndim, self.p.shape[0]
        if set(self.p.shape) != {self.vocab} or not np.all(self.p >= 0) or not abs(self.p.sum() - 1) <= 1e-9:
            raise ConfigError(
                f"a table is of shape (V,)*N, not negative and sums to 1; got {self.p.shape}, min {self.p.min():.3g}, "
                f"sum {self.p.sum():.9g}"
            )
        # Prefixes are numbered like a heap: the root is 0, and prefix k followed by token v is k * vocab + v + 1.
        self.log_conditionals = log(np.concatenate([each.reshape(-1, self.vocab) for each in conditionals(self.p)]))

    def start(self, n: int) -> State:
        return (np.zeros(n, np.int64),)

    def log_conditional(self, state: State) -> np.ndarray:
        return self.log_conditionals[state[0]]

    def advance(self, state: State, tokens: np.ndarray) -> State:
        return (state[0] * self.vocab + tokens + 1,)

    def probabilities(self) -> np.ndarray:
        return self.p.copy()


class Markov(SequenceWorld):
    """First-order chain: P(x) = initial[x_0] prod_t transition[x_t-1, x_t]."""

    def __init__(self, initial: np.ndarray, transition: np.ndarray, length: int):
        self.initial, self.transition = check_rows("initial", initial), check_rows("transition", transition)
        self.vocab, self.length = len(self.initial), length
        # Row 0 is that of the first token, row 1 + v that after token v.
        self.log_conditionals = log(np.concatenate([self.initial[None], self.transition]))

    def start(self, n: int) -> State:
        return (np.zeros(n, np.int64),)

    def log_conditional(self, state: State) -> np.ndarray:
        return self.log_conditionals[state[0]]

    def advance(self, state: State, tokens: np.ndarray) -> State:
        return (tokens + 1,)

    def entropy(self) -> float:
        """H = H(initial) + sum_t sum_v P(x_t = v) H(transition[v]), nats; any size."""
        rows = entropy(self.transition)
        total, marginal = float(entropy(self.initial)), self.initial
        for _ in range(self.length - 1):
            total += float(marginal @ rows)
            marginal = marginal @ self.transition
        return total


class HiddenMarkov(SequenceWorld):
    """Hidden chain z, first order, that emits one token a step.

    P(x) = sum_z initial[z_0] emission[z_0, x_0] prod_t transition[z_t-1, z_t] emission[z_t, x_t], by the forward
    algorithm. initial (S,), transition (S, S), emission (S, vocab).
    """

    def __init__(self, initial: np.ndarray, transition: np.ndarray, emission: np.ndarray, length: int):
        self.initial, self.transition = check_rows("initial", initial), check_rows("transition", transition)
        self.emission = check_rows("emission", emission)
        self.vocab, self.length = self.emission.shape[1], length

    def start(self, n: int) -> State:
        return (np.tile(self.initial, (n, 1)),)

    def log_conditional(self, state: State) -> np.ndarray:
        return log(state[0] @ self.emission)

    def advance(self, state: State, tokens: np.ndarray) -> State:
        """The belief about the hidden state of the next position; a token of probability 0 teaches it nothing."""
        joint = state[0] * self.emission[:, tokens].T
        return (normalise(joint, otherwise=state[0]) @ self.transition,)


def check_rows(name: str, p: np.ndarray) -> np.ndarray:
    """p as float64, after a check that its last axis is a law. Raises ConfigError."""
    p = np.asarray(p, np.float64)
    if not np.all(p >= 0) or not np.all(np.abs(p.sum(-1) - 1) <= 1e-9):
        raise ConfigError(f"{name} of shape {p.shape} is not a law in each row: its sums are {p.sum(-1)}")
    return p


def check_probability(name: str, value: float) -> None:
    """Raises ConfigError for a number outside [0, 1]."""
    if not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value}; it is a probability")


def read_sizes(config: Any, vocab: int = VOCAB, length: int = LENGTH) -> tuple[int, int, np.random.Generator]:
    """vocab and length, the defaults where the config has 0, and the generator of what the world draws for itself.

    Raises ConfigError for values that cannot be.
    """
    for key in ("vocab", "length", "states"):
        if config[key] < 0:
            raise ConfigError(
                f"data.world.{key} is {config[key]}; it counts something: give 1 or more, 0 for the default"
            )
    if config.concentration <= 0:
        raise ConfigError(f"data.world.concentration is {config.concentration}; a Dirichlet law needs it above 0")
    return config.vocab or vocab, config.length or length, np.random.default_rng(config.seed)


def build_table(config: Any) -> Table:
    """The table in data.world.probabilities, else a Dirichlet draw over all strings."""
    if len(config.probabilities):
        try:
            table = Table(np.asarray(config.probabilities, np.float64))
        except ValueError as error:
            raise ConfigError(f"data.world.probabilities is not nested like a table (V,)*N: {error}") from error
        if config.vocab not in (0, table.vocab) or config.length not in (0, table.length):
            raise ConfigError(
                f"data.world.probabilities has {table.length} positions of {table.vocab} symbols, but "
                f"data.world.length is {config.length} and vocab {config.vocab}; leave them 0"
            )
        return table
    vocab, length, rng = read_sizes(config)
    if vocab**length > MOST_STRINGS:
        raise ConfigError(
            f"a table of {vocab}^{length} strings is too large (at most {MOST_STRINGS}): lower data.world.vocab or "
            "data.world.length, or take the world 'markov'"
        )
    return Table(rng.dirichlet(np.full(vocab**length, config.concentration)).reshape((vocab,) * length))


def build_markov(config: Any) -> Markov:
    """Dirichlet draws of the first token's law and of each row of the transitions."""
    vocab, length, rng = read_sizes(config)
    alpha = np.full(vocab, config.concentration)
    return Markov(rng.dirichlet(alpha), rng.dirichlet(alpha, vocab), length)


def build_hmm(config: Any) -> HiddenMarkov:
    """Dirichlet draws of the first state's law and of each row of transitions and emissions."""
    vocab, length, rng = read_sizes(config)
    if not config.states:
        raise ConfigError("data.world.states is 0; a hidden Markov chain needs at least 1")
    alpha = np.full(config.states, config.concentration)
    return HiddenMarkov(
        rng.dirichlet(alpha),
        rng.dirichlet(alpha, config.states),
        rng.dirichlet(np.full(vocab, config.concentration), config.states),
        length,
    )
