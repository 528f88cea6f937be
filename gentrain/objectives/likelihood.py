"""Maximum likelihood, which minimises KL[P||Q] by teacher forcing."""

from dataclasses import dataclass
from functools import partial

from ml_collections import ConfigDict

from gentrain import models, plugins
from gentrain.data import Spec
from gentrain.losses import masked_sum, smoothed_nll


@dataclass(frozen=True)
class Likelihood:
    """loss = -sum_t log Q(x_t | x_<t), in nats a token, over the tokens that are not padding; of points -log Q(x).

    It is the log score, strictly proper: its mean over the data is KL[P||Q] + H(P), least at Q = P alone.
    """

    model: models.SequenceModel | models.DensityModel
    end: int | None
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    players: tuple[str, ...] = ("generator",)
    splittable: bool = True

    def init(self, key, batch):
        return {"generator": self.model.init(key)}, {}

    def loss(self, player, params, carry, batch, key, step):
        if isinstance(self.model, models.DensityModel):
            total = masked_sum(-self.model.log_prob(params[player], batch["points"]), batch["mask"])
            return total, {"nll": total}
        inputs = models.shift_right(batch["tokens"], self.model.vocab, self.end)
        context, keys = batch.get("context"), models.example_keys(key, batch["row"])
        score = partial(smoothed_nll, label_smoothing=self.label_smoothing, z_loss=self.z_loss)
        loss, nll = models.at_positions(
            self.model, params[player], score, inputs, batch["tokens"], context=context, keys=keys
        )
        return masked_sum(loss, batch["mask"]), {"nll": masked_sum(nll, batch["mask"])}

    def remember(self, carry, metrics, params):
        return carry


def build(config: ConfigDict, spec: Spec) -> Likelihood:
    model = plugins.load("models", config.model.name).build(config.model, spec)
    return Likelihood(model, spec.end, config.objective.label_smoothing, config.objective.z_loss)
