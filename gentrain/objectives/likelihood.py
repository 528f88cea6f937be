"""Maximum likelihood, which minimises KL[P||Q] by teacher forcing."""

from dataclasses import dataclass

from ml_collections import ConfigDict

from gentrain.datasets.spec import Spec
from gentrain.losses import masked_sum, smoothed_nll
from gentrain.models.base import DensityModel, SequenceModel, token_scores
from gentrain.models.feeding import example_keys
from gentrain.objectives.base import Objective, generator_of
from gentrain.objectives.likelihood_options import Options
from gentrain.sums import Metric

METRICS = {"generator/nll": Metric("nats/token", "lower", "negative log-likelihood of the training batches")}


@dataclass(frozen=True)
class Likelihood(Objective):
    """loss = -sum_t log Q(x_t | x_<t), in nats a token, over the tokens that are not padding; of points -log Q(x).

    It is the log score, strictly proper: its mean over the data is KL[P||Q] + H(P), least at Q = P alone.
    """

    model: SequenceModel | DensityModel
    options: Options

    def loss(self, player, params, carry, batch, key, step):
        if isinstance(self.model, DensityModel):
            nll = masked_sum(*self.model.batch_nll(params[player], batch))
            return nll, {"nll": nll}
        tokens = batch["tokens"]
        keys = example_keys(key, batch["row"])
        scores = token_scores(self.model, params[player], self.model.inputs(tokens), tokens, batch.get("context"), keys)
        loss = smoothed_nll(scores, self.options.label_smoothing, self.options.z_loss)
        return masked_sum(loss, batch["mask"]), {"nll": masked_sum(scores.nll, batch["mask"])}


def build(config: ConfigDict, spec: Spec) -> Likelihood:
    model = generator_of(config, spec)
    return Likelihood(model, Options.read(config.objective, config.likelihood))
