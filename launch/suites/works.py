"""What is timed: a step of training or a batch of samples at a shape, by its name. Free of JAX and of the peers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

GAN = {"objective.name": "adversarial", "adversarial.generator_loss": "non_saturating"}
R3GAN = {"objective.name": "adversarial", "adversarial.generator_loss": "relativistic",
         "adversarial.r1": 0.05, "adversarial.r2": 0.05}  # fmt: skip
SCHEDULED = {"objective.name": "scheduled_sampling", "scheduled_sampling.keep_true": 0.75}
ADVERSARIAL = {"objective.name": "adversarial", "critic.name": "lstm", "critic.width": 32}
PROMPT = 16  # tokens of the data before those that a student draws
DISTILLED = {"objective.name": "distillation", "objective.real_prior": 0.5, "distillation.prompt": PROMPT}


class Shape(NamedTuple):
    """The shape of a sequence model and of its batches."""

    family: str
    width: int
    layers: int
    heads: int
    mlp_width: int
    vocab: int
    batch: int
    length: int

    @property
    def gflop(self) -> float:
        """Of the matmuls of one training step without attention: 6 for each parameter of a matrix and token."""
        block = 8 * self.width**2 if self.family == "lstm" else self.width * (4 * self.width + 3 * self.mlp_width)
        return 6e-9 * self.batch * self.length * (self.layers * block + self.width * self.vocab)

    def config(self) -> dict[str, Any]:
        """As options, by their full names."""
        options = {"model.name": self.family, "model.width": self.width, "model.layers": self.layers,
                   "data.batch_size": self.batch, "data.length": self.length}  # fmt: skip
        if self.family == "transformer":
            heads = {"heads": self.heads, "kv_heads": self.heads, "mlp_width": self.mlp_width, "scan_layers": False}
            options |= {f"model.transformer.{name}": value for name, value in heads.items()}
        return options


class ImageShape(NamedTuple):
    """The shape of a generator and a critic of square grey images of one family, and of their batches."""

    family: str
    width: int
    side: int
    latent: int
    batch: int

    @property
    def scales(self) -> list[tuple[int, int]]:
        """(side, channels) of each resolution, the finest first, as models.images.scales."""
        halvings = next(count for count in range(99) if self.side >> count <= 7 or (self.side >> count) % 2)
        return [(self.side >> level, self.width << min(level, 3)) for level in range(halvings + 1)]

    def config(self) -> dict[str, Any]:
        """As options, by their full names."""
        options = {f"{role}.{name}": value for role in ("model", "critic")
                   for name, value in (("name", self.family), ("width", self.width))}  # fmt: skip
        return options | {f"model.{self.family}.latent": self.latent, "data.batch_size": self.batch}


class Prepared(NamedTuple):
    """do() does a work once, and returns when it is done. numbers: what is known of it beforehand, by unit."""

    do: Callable[[], Any]
    numbers: dict[str, float]


SHAPES = {"train": Shape, "sample": Shape, "search": Shape, "train_images": ImageShape}
BEAM = 4  # prefixes that a search keeps
TENSORFLOW = ("tfa_scheduled", "tf_rollouts")  # peers that run under an interpreter of their own


class Work(NamedTuple):
    """A thing to do again and again.

    does: one of SHAPES. options: beside those of the shape. peers: who does the same work elsewhere, by the names
    of suites.peers. target: the least speed that is wanted, by that of the first of them; 0: none.
    """

    does: str
    shape: Any  # of the kind that SHAPES has for it
    options: Mapping[str, Any]
    peers: tuple[str, ...] = ()
    target: float = 0.0


SMALL = Shape("transformer", 128, 2, 4, 512, 512, 16, 128)
MIDDLE = Shape("transformer", 256, 2, 4, 1024, 5000, 16, 128)
FILLING = Shape("transformer", 512, 4, 8, 2048, 512, 16, 256)
NARROW = Shape("lstm", 32, 1, 0, 0, 5000, 64, 20)
WIDE = Shape("lstm", 256, 1, 0, 0, 5000, 64, 20)
TAUGHT = SMALL._replace(batch=8, length=PROMPT + 48)
TEACHER = {name.replace("model", "teacher", 1): value for name, value in TAUGHT.config().items() if "model" in name}
IMAGES = ImageShape("resnet", width=16, side=32, latent=32, batch=32)
WORKS = {
    "transformer, width 128": Work("train", SMALL, {}, ("gpt2", "llama"), 1.15),
    "transformer, width 256, vocab 5000": Work("train", MIDDLE, {}, ("gpt2", "llama"), 1.2),
    "transformer that fills the core": Work("train", FILLING, {}, ("llama",), 1.0),
    "lstm, width 32": Work("train", NARROW, {}, ("torch_lstm",), 1.5),
    "lstm, width 256": Work("train", WIDE, {}, ("torch_lstm",), 1.1),
    "scheduled sampling, width 32": Work("train", NARROW, SCHEDULED, ("tfa_scheduled", "torch_scheduled"), 1.7),
    "scheduled sampling, width 256": Work("train", WIDE, SCHEDULED, ("tfa_scheduled", "torch_scheduled"), 1.4),
    "adversarial, dense rewards": Work("train", NARROW, ADVERSARIAL),
    "adversarial, known density": Work("train", NARROW, {**ADVERSARIAL, "adversarial.known_density": True}),
    "adversarial, one rollout": Work(
        "train",
        NARROW,
        {**ADVERSARIAL, "adversarial.reward": "rollouts", "adversarial.rollouts": 1},
        ("tf_rollouts",),
        1.5,
    ),
    "distillation, on-policy": Work("train", TAUGHT, {**DISTILLED, **TEACHER}, ("trl",), 3.0),
    "images, resnet": Work("train_images", IMAGES, GAN, ("torch_images",), 1.1),
    "images, dcgan": Work("train_images", IMAGES._replace(family="dcgan"), GAN, ("torch_images",), 1.1),
    "images, r3gan": Work("train_images", IMAGES._replace(family="r3gan"), R3GAN, ("torch_images",), 1.0),
    "sampling, lstm, width 32": Work("sample", NARROW, {}, ("torch_lstm",), 1.8),
    "sampling, transformer with a cache": Work("sample", SMALL._replace(length=64), {}, ("gpt2",), 5.0),
    "beam search, transformer with a cache": Work("search", SMALL._replace(length=64), {}, ("gpt2",), 5.0),
}
