"""The sections of a config that belong to no plug-in, and what each of them shares with the plug-ins it selects."""

import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from ml_collections import ConfigDict

from gentrain import plugins
from gentrain.options.schema import Options, expect, hint, option
from gentrain.published import families

if TYPE_CHECKING:
    from gentrain.options.tree import Run

setting = partial(option, may_change=True)  # how a run is carried out: another value does not make it another run

MOMENTS = (
    *("adabelief", "adam", "adamax", "adamaxw", "adamw", "adan", "amsgrad", "lamb", "lion", "nadam", "nadamw"),
    *("novograd", "radam", "yogi"),
)
EPSILON = (*(name for name in MOMENTS if name != "lion"), "adadelta", "adafactor", "adagrad", "lars", "rmsprop")
MOMENTUM = ("adafactor", "lars", "rmsprop", "sgd", "sm3")
DECAY = ("adadelta", "adamaxw", "adamw", "adan", "lamb", "lars", "lion", "nadamw", "novograd")
TOKENIZERS = ("bytes", "chars", "words", "sentencepiece")
OPTIMIZERS = tuple(sorted({*MOMENTS, *EPSILON, *MOMENTUM, *DECAY}))


@dataclass(frozen=True)
class RunOptions(Options):
    """The run as a whole."""

    seed: int = option(0, "the seed of parameters, of the order of the data and of every draw", within="(-inf, inf)")
    steps: int = setting(1000, "updates; schedules are functions of the step, so another number changes them",
                         within="(0, inf)")  # fmt: skip
    sweep: tuple = setting(
        (),
        "variants that are run one after another, each in a folder of its own, with one report across them:"
        ' dicts of overrides by full key, as {"optimizer.learning_rate": 1e-2}, or base.grid({...}) of them',
    )
    init_from: Any = setting(  # noqa: RUF009, a field
        "",
        "the workdir of another run, whose newest checkpoint gives the parameters of all players of the same name; or a"
        " published model, as 'hf:DIR', 'gguf:FILE' or 'smollm2-135m', which gives the generator's, and whose shape and"
        " tokenizer the config then takes; or (player, workdir or published model, its player) triples, as"
        " (('teacher', 'runs/x', 'generator'),), where 'world' in place of a workdir is the law of a world, as a table",
    )
    init_from_vocab: str = setting(
        "error",
        "a run of init_from with another tokenizer: 'error', or 'shared': what stands for a symbol that both have is"
        " copied by that symbol, and the rest stays new",
        choices=("error", "shared"),
    )


@dataclass(frozen=True)
class ObjectiveSection(Options):
    """Which objective is minimised. The options of an objective stand in the section of its name.

    has_teacher: whether it learns from a teacher, who may have been asked before (data.taught).
    """

    is_section: ClassVar[bool] = True
    always: ClassVar[tuple[str, ...]] = ("name",)
    networks: ClassVar[dict[str, str]] = {"model": "model"}  # section -> role: see tree.families
    has_teacher: ClassVar[bool] = False

    name: str = option("likelihood", "an objective: a file of gentrain/objectives")
    real_prior: float = option(
        0.5, "pi, the weight on the data: towards 0 the objective is KL[P||Q], towards 1 KL[Q||P]", within="[0, 1]"
    )


class SourceOptions(Options):
    """What a source of data declares besides its options.

    argument: what stands after the colon in data.name, as 'PATH'; an empty string: nothing may. known_law: whether the
    law that the data are drawn from is known exactly.
    """

    argument: ClassVar[str] = ""
    known_law: ClassVar[bool] = False

    def kind(self, argument: str) -> str:
        """'text', 'images' or 'points'; an empty string where that is known only once the source is read."""
        return ""

    def also(self, argument: str) -> tuple[str, ...]:
        """Names of other sources that this one reads."""
        return ()


@dataclass(frozen=True)
class DataSection(SourceOptions):
    """What to train on. The options of a source stand in the sub-section of its name."""

    is_section: ClassVar[bool] = True
    always: ClassVar[tuple[str, ...]] = ("name", "batch_size", "prefetch", "skip_batches", "taught")

    name: str = option("surnames", "a source: a file of gentrain/datasets/sources, with its argument, as 'text:PATH'")
    batch_size: int = option(64, "examples a step, over all devices and processes", within="(0, inf)")
    prefetch: int = setting(2, "batches that a thread makes ahead; 0: each is made when it is needed",
                            within="[0, 1000]")  # fmt: skip
    length: int = option(
        64, "tokens a row; longer documents are cut into rows, and are an error with a context", within="(0, inf)"
    )
    layout: str = option(
        "pad",
        "'pad': one document, or a piece of one, a row; 'pack': as many whole documents as fit",
        choices=("pad", "pack"),
    )
    tokenizer: str = option(
        "chars",
        "the unit of text: bytes, chars, words or sentencepiece, learned on train; or a published tokenizer, as"
        " 'hf:DIR', 'gguf:FILE' or 'smollm2-135m'. It is kept in the workdir",
    )
    vocab_size: int = option(
        0,
        "the most symbols that the vocabulary may have; 0: all words, or 8192 pieces",
        when={"tokenizer": ("words", "sentencepiece")},
    )
    conditional: bool = option(False, "give an image's class, or what a text is about, to the model as its context")
    image_size: int = option(0, "side in pixels of the square that images are resized to; 0: as they are",
                             within="[0, 10000]")  # fmt: skip
    levels: int = option(0, "grey levels, 2 to 256, that pixels are quantised to; 0: as they are", within="[0, 256]")
    valid_fraction: float = option(
        0.05, "share of documents, or of the end of a few long ones, held out where no split is given", within="[0, 1)"
    )
    test_fraction: float = option(0.05, "the same for the test split", within="[0, 1)")
    max_damaged: float = option(
        0.0,
        "share of the examples that may be left out, and are counted, because they cannot be read; 0: the first one is"
        " an error",
        within="[0, 1)",
    )
    taught: str = option(
        "",
        "a folder of `python -m launch.teach`: what a teacher says of every row of train, which is read in place of"
        " asking it; all of it is compared with its digests at each start, about 0.6 s a GB",
    )
    skip_batches: tuple = setting(
        (), "(first, after the last) pairs: batches of these numbers are left out, for good: --skip_batches=200:300"
    )

    def check(self, run: "Run", where: str) -> None:
        published = families.is_published(self.tokenizer)
        one_of = f"one of {', '.join(TOKENIZERS)}, or a published one, as 'hf:DIR'{hint(self.tokenizer, TOKENIZERS)}"
        expect(published or self.tokenizer in TOKENIZERS, "data.tokenizer", self.tokenizer, one_of)
        held_out = self.valid_fraction + self.test_fraction
        expect(
            held_out < 1, "data.valid_fraction + data.test_fraction", held_out, "below 1: something is to be learned"
        )
        expect(self.levels != 1, "data.levels", self.levels, "0, or 2 to 256")
        for pair in self.skip_batches:
            whole = isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(n, int) for n in pair)
            expect(whole and 0 <= pair[0] < pair[1], "data.skip_batches", pair, "(first, after the last) pairs")


@dataclass(frozen=True)
class NetworkSection(Options):
    """One network. The options of a family of models stand in the sub-section of its name.

    makes: what its models generate; has_log_prob: whether they know the probability of an example; reads_mixtures:
    whether they read weighted mixtures of tokens in place of tokens; independent: whether positions are independent.
    judges: what its critics tell real from generated; prefixes: whether they estimate every prefix of a sequence.
    has_kernels: whether there are matrices for spectral normalisation.
    """

    is_section: ClassVar[bool] = True
    always: ClassVar[tuple[str, ...]] = ("name",)
    makes: ClassVar[str] = "sequences"
    has_log_prob: ClassVar[bool] = True
    reads_mixtures: ClassVar[bool] = False
    judges: ClassVar[tuple[str, ...]] = ("sequences",)
    prefixes: ClassVar[bool] = True
    has_kernels: ClassVar[bool] = True

    name: str = option("lstm", "a family of models: a file of gentrain/models")
    width: int = option(
        128, "numbers of an embedding, a hidden state and the residual stream; channels at full resolution",
        within="(0, inf)",
    )  # fmt: skip
    layers: int = option(1, "layers, or blocks a resolution", within="(0, 1000]")
    dropout: float = option(0.0, "probability of zeroing an activation in training", within="[0, 1)")
    param_dtype: str = option(
        "float32", "type of parameters, optimiser state and gradients", choices=("float32", "bfloat16")
    )
    compute_dtype: str = setting(
        "float32", "type of activations and matmuls; logits and losses are float32", choices=("float32", "bfloat16")
    )

    @classmethod
    def of(cls, section: ConfigDict) -> Self:
        """The typed options of a network's section, with those of the family that it names."""
        has_own = section.name in section
        return cls.read(section, section[section.name]) if has_own else cls.read(section)


@dataclass(frozen=True)
class OptimizerOptions(Options):
    """The optimiser of every player that learns, and its learning rate by step."""

    name: str = option("adamw", "an optimiser of optax by its name", choices=OPTIMIZERS)
    learning_rate: float = setting(1e-3, "the peak, a step", within="(0, inf)")
    b1: float = setting(0.9, "decay of the first moment", within="[0, 1)", when={"name": MOMENTS})
    b2: float = setting(
        0.99,
        "decay of the second moment, of every optimiser: optax's own are others, as 0.999 of adam and 0.25 of novograd",
        within="[0, 1)",
        when={"name": MOMENTS},
    )
    eps: float = setting(
        0.0,
        "keeps a division by the root of the second moment finite; 0: the optimiser's own, as 1e-8 of adam and 1e-6 of"
        " lamb",
        when={"name": EPSILON},
    )
    momentum: float = setting(
        0.0, "decay of the velocity; 0: none, of lars and sm3 too", within="[0, 1)", when={"name": MOMENTUM}
    )
    weight_decay: float = setting(0.0, "share of each matrix taken off a step, times the rate", when={"name": DECAY})
    clip_norm: float = setting(1.0, "global norm of the gradient above which it is scaled down; 0: never")
    schedule: str = setting(
        "cosine", "how the rate falls after the warm-up", choices=("constant", "linear", "cosine", "rsqrt")
    )
    warmup_steps: int = setting(0, "steps over which the rate rises from 0 to the peak; shortened where it is not less"
                                   " than the steps of the run")  # fmt: skip
    final_fraction: float = setting(
        0.1, "share of the peak at which the rate ends", within="[0, 1]", when={"schedule": ("linear", "cosine")}
    )


@dataclass(frozen=True)
class TrainingOptions(Options):
    """How a step is computed and when a run gives up."""

    microbatches: int = setting(
        1, "parts of a batch whose gradients are added up, to save memory; the result is the same", within="(0, inf)"
    )
    mode: str = setting(
        "jit",
        "'jit': the compiler places communication; 'shard_map': one explicit sum over devices, each of which has all"
        " parameters. Over several devices the compiler gathers all activations for the gradients of grouped"
        " convolutions: there shard_map sends far less",
        choices=("jit", "shard_map"),
    )
    ema_decay: float = setting(
        0.0,
        "decay a step of the averaged parameters, which are then evaluated. The average starts at the first parameters,"
        " which have a share of ema_decay^steps in it, and is not corrected for them; 0: no average",
        within="[0, 1)",
    )
    max_skipped: int = setting(
        10, "updates in a row that are not finite, and never applied, before the run ends with exit code 3; so many"
            " sound steps after it prove a checkpoint, and the newest proved one is always kept",
        within="(0, inf)",
    )  # fmt: skip
    spike_sigma: float = setting(
        0.0, "standard deviations above the mean of its last 128 losses at which a player's update is not applied;"
             " 0: never",
    )  # fmt: skip
    replica_check_steps: int = setting(
        100,
        "steps between two looks at whether devices hold the same copies of parameters and state; where they do not, a"
        " device computes wrongly and the run ends with exit code 42; 0: never",
    )
    stuck_seconds: float = setting(
        60.0,
        "a run of several processes in which a step takes longer than this, and than ten of the longest step before,"
        " ends with exit code 42, to be started again; 0: it waits for ever",
    )


@dataclass(frozen=True)
class MeshOptions(Options):
    """Devices along each axis of the mesh; one axis may be -1, all that are left."""

    replica: int = setting(1, "copies of the model on separate pods, across the slowest network", within="[-1, inf)")
    data: int = setting(-1, "parts of the rows of a batch", within="[-1, inf)")
    fsdp: int = setting(1, "parts of the rows of a batch, and parameters split with them", within="[-1, inf)")
    sequence: int = setting(1, "parts of the positions of a row, for models that read them side by side",
                            within="[-1, inf)")  # fmt: skip
    tensor: int = setting(1, "parts of each matmul", within="[-1, inf)")
    rules: tuple = setting(
        (), "(regular expression on a parameter's path, axes of its dimensions) pairs; others are split over fsdp"
    )

    def check(self, run: "Run", where: str) -> None:
        sizes = [self.replica, self.data, self.fsdp, self.sequence, self.tensor]
        expect(all(size for size in sizes), "mesh", sizes, "positive lengths, or -1 for one axis")
        expect(sizes.count(-1) <= 1, "mesh", sizes, "at most one -1")
        for rule in self.rules:
            pair = isinstance(rule, tuple | list) and len(rule) == 2 and isinstance(rule[0], str)
            expect(pair and isinstance(rule[1], tuple | list), "mesh.rules", rule, "(regular expression, axes) pairs")
            try:
                re.compile(rule[0])
            except re.error as error:
                expect(False, "mesh.rules", rule[0], f"a regular expression ({error})")


@dataclass(frozen=True)
class CheckpointOptions(Options):
    """When the state is saved and what is kept."""

    every_steps: int = setting(1000, "steps between saves; the last step is always saved", within="(0, inf)")
    every_seconds: float = setting(600.0, "seconds between saves; whichever comes first", within="(0, inf)")
    keep_last: int = setting(2, "newest checkpoints that are kept, besides the newest proved one",
                             within="(0, inf)")  # fmt: skip
    keep_every: int = setting(0, "steps; checkpoints at multiples of it are never deleted; 0: none")


@dataclass(frozen=True)
class LogOptions(Options):
    """What a run tells while it goes on."""

    every_steps: int = setting(50, "steps between lines of metrics.jsonl", within="(0, inf)")
    loggers: tuple = setting(
        ("tensorboard",),
        "where else the numbers of metrics.jsonl go: files of gentrain/reporting/loggers, as 'tensorboard', for events"
        " in the workdir, and 'wandb'; (): nowhere",
    )
    profile: tuple = setting((), "(first, last): steps to trace into profile/ with jax.profiler; (): none")

    def check(self, run: "Run", where: str) -> None:
        for logger in self.loggers:
            plugins.require("reporting.loggers", logger)
        steps = self.profile
        whole = all(isinstance(step, int) for step in steps)
        holds = not steps or (len(steps) == 2 and whole and 0 <= steps[0] < steps[1])
        expect(holds, "log.profile", steps, "() or two steps, the first before the last, as (10, 13)")


@dataclass(frozen=True)
class EvaluateSection(Options):
    """What is measured and when. The options of an evaluator stand in the sub-section of its name."""

    is_section: ClassVar[bool] = True
    always: ClassVar[tuple[str, ...]] = ("evaluators", "every_steps", "split", "keep_best", "patience")

    evaluators: tuple = setting(("likelihood", "samples"), "evaluators: files of gentrain/evaluators")
    every_steps: int = setting(500, "steps between evaluations; the end is always evaluated", within="(0, inf)")
    split: str = setting("valid", "the held-out split that is measured", choices=("train", "valid", "test"))
    keep_best: str = setting(
        "",
        "a metric of the evaluators with a better direction, as 'valid/nll': each evaluation that is the best so far is"
        " saved, and the checkpoint of the best one is never deleted; '': no metric",
    )
    patience: int = setting(
        0, "evaluations in a row without a new best of keep_best after which the run is done; 0: it never ends early"
    )
    batches: int = setting(0, "batches of the split that are read; 0: all of them")
    examples: int = setting(512, "samples that an evaluator draws, and as many held-out examples", within="(0, 1e7]")

    def check(self, run: "Run", where: str) -> None:
        expect(bool(self.keep_best) or not self.patience, "evaluate.patience", self.patience,
               "0, or a metric in evaluate.keep_best, which the run waits for")  # fmt: skip


@dataclass(frozen=True)
class SampleOptions(Options):
    """How samples are drawn for people to look at."""

    count: int = setting(
        16, "documents or images: of each class in turn; texts to the contexts of the split's first rows",
        within="(0, 10000]",
    )  # fmt: skip
    length: int = setting(0, "the most tokens of a document; 0: data.length", within="[0, 1e5]")
    seed: int = setting(0, "another number draws other samples of the same parameters", within="[0, 4294967295]")
    temperature: float = setting(1.0, "divides the logits; 0 takes the likeliest token")
    top_k: int = setting(0, "draw from this many likeliest tokens; 0: all")
    top_p: float = setting(
        1.0, "draw from the likeliest tokens that make up this share of what top_k keeps", within="(0, 1]"
    )

    def check(self, run: "Run", where: str) -> None:
        warm = self.temperature
        expect(warm == 0 or warm >= 1e-3, "sample.temperature", warm, "0, which takes the likeliest, or at least 0.001")


@dataclass(frozen=True)
class ReportSection(Options):
    """What the report draws. The options of a figure stand in the sub-section of its name."""

    is_section: ClassVar[bool] = True
    always: ClassVar[tuple[str, ...]] = ("figures",)

    figures: tuple = setting((), "figures: files of gentrain/reporting/figures, drawn beside a sweep")


FIXED: dict[str, type[Options]] = {
    "optimizer": OptimizerOptions,
    "training": TrainingOptions,
    "mesh": MeshOptions,
    "checkpoint": CheckpointOptions,
    "log": LogOptions,
    "sample": SampleOptions,
}
