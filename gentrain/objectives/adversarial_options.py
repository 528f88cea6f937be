"""Options of adversarial training."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gentrain.options.schema import expect, option
from gentrain.options.sections import ObjectiveSection

if TYPE_CHECKING:
    from gentrain.options.tree import Run

LOG_RATIO_GAMES = ("js", "reverse_kl", "forward_kl", "non_saturating")  # their critic's logit estimates a log-ratio
OTHER_GAMES = ("hinge", "relativistic")
RELAXED = ("straight_through", "gumbel_softmax")
AUGMENTATIONS = ("flip", "shift", "cutout", "brightness", "contrast")
SEQUENCES = {"makes": ("sequences",)}
SCORE = SEQUENCES | {"estimator": ("score",)}


@dataclass(frozen=True)
class Options(ObjectiveSection):
    networks: ClassVar[dict[str, str]] = {"model": "model", "critic": "critic"}

    generator_loss: str = option(
        "js",
        "what the generator descends: 'js' (the dial), 'reverse_kl', 'forward_kl', 'non_saturating' (the dial the wrong"
        " way round), or 'hinge' and 'relativistic', whose critics are no log-ratios",
        choices=(*LOG_RATIO_GAMES, *OTHER_GAMES),
    )
    critic_steps: int = option(1, "moves of the critic a step, each on new samples of the generator", within="(0, 100]")
    critic_rate: float = option(
        1.0, "learning rate of the critic by the generator's", within="(0, inf)", may_change=True
    )
    allocation: str = option(
        "weights",
        "what the critic sees of a batch: all its data and as many samples, with 'weights' pi and 1 - pi, or 'counts',"
        " data in pi of its rows and samples in the rest",
        choices=("weights", "counts"),
        when={"generator_loss": (*LOG_RATIO_GAMES, "hinge")},
    )
    prefixes: str = option(
        "all",
        "the critic learns on 'all' prefixes of a sequence, where it has them, or on the 'last'",
        choices=("all", "last"),
        when=SEQUENCES | {"generator_loss": LOG_RATIO_GAMES},
    )
    known_density: bool = option(
        False,
        "the critic of prefixes learns the law of the data alone, and the log-probability that the generator itself"
        " gives to a token is subtracted. Where init_from gives the generator and no critic, a critic of the same name,"
        " width and layers starts as a copy of it, and its loss at chance",
        when=SCORE,
    )
    # All of these move D away from its optimum, and the generator from the divergence that it is said to descend.
    label_smoothing: float = option(
        0.0,
        "of the target of real examples, the share that says 'generated'",
        within="[0, 1)",
        when={"generator_loss": LOG_RATIO_GAMES},
    )
    r1: float = option(
        0.0,
        "adds r1 / 2 of the critic's mean squared slope at real examples. Its loss is a mean over both classes,"
        " so at pi = 1/2 the gamma of papers that add the classes up, as StyleGAN's, is 2 r1; that of R3GAN, whose"
        " 'relativistic' loss is of pairs, is r1",
    )
    r2: float = option(0.0, "adds r2 / 2 of the same at generated examples")
    spectral_norm: bool = option(False, "divides the critic's matrices by their largest singular value, if above 1")
    augment: tuple = option(
        (),
        f"what pictures, data and samples alike, go through before the critic: {', '.join(AUGMENTATIONS)}",
        when={"makes": ("images",)},
    )
    # How sequences are differentiated.
    estimator: str = option(
        "score",
        "the generator's gradient: 'score' is unbiased, 'straight_through' and 'gumbel_softmax' are biased",
        choices=("score", *RELAXED),
        when=SEQUENCES,
    )
    temperature: float = option(
        1.0, "of the mixtures that are fed to the critic", within="(0, inf)", when=SEQUENCES | {"estimator": RELAXED}
    )
    reward: str = option(
        "dense",
        "what a token is rewarded with: 'sequence', the whole's reward; 'dense', the same less that of its prefix, from"
        " a critic of prefixes; 'discounted', sum of discount^k (2 D - 1); 'rollouts', the mean over drawn endings",
        choices=("sequence", "dense", "discounted", "rollouts"),
        when=SCORE,
    )
    discount: float = option(0.9, "a token", within="[0, 1]", when=SCORE | {"reward": ("discounted",)})
    rollouts: int = option(
        16, "sequences drawn after each prefix", within="(0, 10000]", when=SCORE | {"reward": ("rollouts",)}
    )
    baseline: str = option(
        "leave_one_out",
        "what rewards are compared with: the other rows' mean at each token, a 'moving_average' over the tokens of the"
        " steps before, or 'none'",
        choices=("leave_one_out", "moving_average", "none"),
        when=SCORE,
    )
    baseline_decay: float = option(
        0.9, "decay a step of the moving average", within="[0, 1)", when=SCORE | {"baseline": ("moving_average",)}
    )
    entropy_weight: float = option(0.0, "adds so many times the generator's entropy to its reward", when=SCORE)
    likelihood_weight: float = option(0.0, "adds so many times -log Q(data) to the generator's loss at step 0")
    likelihood_final: float = option(0.0, "the same at the last step; a straight line between")

    def check(self, run: "Run", where: str) -> None:
        pi, critic, model = self.real_prior, run.networks["critic"], run.model
        ends = "a number between 0 and 1: at the ends a critic sees one class; their limits are generator_loss="
        expect(0 < pi < 1, "objective.real_prior", pi, ends + "'forward_kl' and 'reverse_kl'")
        expect(critic.has_kernels or not self.spectral_norm, f"{where}.spectral_norm", True, "a critic with matrices")
        sequences = model.makes == "sequences"
        likelihood = self.likelihood_weight or self.likelihood_final
        knows = f"0: model.name={model.name!r} knows no log-probabilities"
        expect(model.has_log_prob or not likelihood, f"{where}.likelihood_weight", likelihood, knows)
        dropout = "0: samples are drawn and scored without it, and a likelihood_weight alone reads it"
        expect(not (sequences and model.dropout) or likelihood > 0, "model.dropout", model.dropout, dropout)
        for name in self.augment:
            expect(name in AUGMENTATIONS, f"{where}.augment", name, "some of " + ", ".join(AUGMENTATIONS))
        if sequences and self.estimator == "score":
            self.check_score(run, where)
        elif sequences:
            both = model.reads_mixtures and critic.reads_mixtures
            reads = "'score', or a model and a critic that read mixtures of tokens, as lstm"
            expect(both, f"{where}.estimator", self.estimator, reads)

    def check_score(self, run: "Run", where: str) -> None:
        """What the score function of sequences needs of the game and the critic."""
        critic = run.networks["critic"]
        rewards = "one that gives rewards, for estimator='score': " + ", ".join(LOG_RATIO_GAMES)
        expect(self.generator_loss in LOG_RATIO_GAMES, f"{where}.generator_loss", self.generator_loss, rewards)
        slopes = (self.r1, self.r2)
        expect(not any(slopes), f"{where}.r1, r2", slopes, "0: tokens of estimator='score' have no slope")
        prefixes = f"'sequence' or 'rollouts': critic.name={critic.name!r} estimates no prefixes"
        dense = self.reward in ("dense", "discounted")
        expect(critic.prefixes or not dense, f"{where}.reward", self.reward, prefixes)
        density = f"False: critic.name={critic.name!r} is no model of sequences"
        expect(critic.prefixes or not self.known_density, f"{where}.known_density", True, density)
