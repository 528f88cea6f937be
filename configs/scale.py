"""Transformers of 1.3 B and 7.1 B parameters by every objective, laid out for 256 TPU v5e or 512 TPU v5p chips.

    python -m launch.aot --config configs/scale.py:1b --topology v5e:16x16
    python -m launch.aot --config configs/scale.py:7b_adversarial --topology v5p:8x8x8

Variants: `1b` and `7b` by maximum likelihood, and each with `_scheduled_sampling` (fed tokens are found exactly) or
`_adversarial` (a critic of the same size that learns the law of the data; start it from a likelihood run with
`config.init_from`); and `1b_distillation`, from 7b on the student's own sequences (256 tokens and 768 new). None has
been run: the training step was compiled by the commands above, on 2 busy CPU cores, for chips that were not there.
Peak: what one chip holds in a step; XLA never fell back on copying an array to every chip.

    variant                  chips      compiling   peak        of memory   each chip's arguments
    1b                       256 v5e     52 s       1.30 GiB     8.7 %       57 MiB
    1b_scheduled_sampling    256 v5e     68 s       1.30 GiB     8.7 %       57 MiB
    1b_adversarial           256 v5e     81 s       2.00 GiB    13.4 %      117 MiB
    1b_distillation          256 v5p    176 s       1.82 GiB     2.1 %      110 MiB
    7b                       512 v5p     44 s       3.38 GiB     3.8 %      159 MiB
    7b_scheduled_sampling    512 v5p     54 s       3.38 GiB     3.8 %      159 MiB
    7b_adversarial           512 v5p     68 s       8.81 GiB    10.0 %      321 MiB

Longer rows, of 1b with as many tokens a step or more: 8,192 tokens 1.30 GiB, 32,768 4.55 GiB (`attention='xla'`, whose
scores are the least memory; `'splash'` takes 7.6). 131,072 tokens are split over devices (3.56 GiB):

    --config.data.length=131072 --config.data.batch_size=8 --config.mesh.fsdp=8 --config.mesh.sequence=16
    --config.model.transformer.attention=xla --config.model.transformer.attention_chunk=128
"""

from configs import base

WIDE = {"1b": (2048, 24, 16, 6144), "7b": (4096, 32, 32, 14_336)}  # width, layers, heads, width of the MLP

VARIANTS = (
    "1b",
    "1b_scheduled_sampling",
    "1b_adversarial",
    "1b_distillation",
    "7b",
    "7b_scheduled_sampling",
    "7b_adversarial",
)


def transformer(network, size: str) -> None:
    """Makes a network's section the Transformer of that size."""
    network.name = "transformer"
    network.width, network.layers, network.transformer.heads, network.transformer.mlp_width = WIDE[size]
    network.transformer.kv_heads = 8
    network.transformer.tie_embeddings = True
    network.compute_dtype = "bfloat16"
    network.transformer.remat = "full"
    network.transformer.logits_chunk = 256
    network.transformer.attention = "splash"


def get_config(variant: str = "1b"):
    base.require_variant(variant, VARIANTS)
    size, _, objective = variant.partition("_")
    config = base.get_config()
    config.steps = 100_000
    config.data.name = "tfds:wiki40b/en"
    config.data.tokenizer = "sentencepiece"
    config.data.vocab_size = 32_000 - 1  # and the end token
    config.data.layout = "pack"
    config.data.length = {"1b": 1024, "7b": 2048}[size]
    config.data.batch_size = 1024
    transformer(config.model, size)
    config.objective.name = objective or "likelihood"
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.1
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 2000
    config.mesh.data = -1
    config.mesh.fsdp = {"1b": 128, "7b": 256}[size]
    config.mesh.tensor = 2
    config.mesh.rules = base.TRANSFORMER_RULES
    config.evaluate.every_steps = 5000
    config.evaluate.batches = 50
    config.sample.top_p = 0.95
    if not objective:
        config.likelihood.z_loss = 1e-4
    if objective == "scheduled_sampling":
        config.scheduled_sampling.mode = "exact"
        config.scheduled_sampling.window = 256
        config.scheduled_sampling.keep_schedule = "inverse_sigmoid"
        config.scheduled_sampling.keep_k = 10_000.0  # half at step 92,000
        config.scheduled_sampling.keep_true = 0.5
    if objective == "adversarial":
        config.data.layout = "pad"  # the generator's sequences are one document each
        config.data.batch_size = 256
        config.adversarial.known_density = True
        transformer(config.critic, size)
        config.critic.transformer.tie_embeddings = False  # so that it starts from the uniform law
        config.mesh.rules = (*base.TRANSFORMER_RULES, (r"output/kernel", ("fsdp", "tensor")))
        config.optimizer.b1 = 0.5
        config.optimizer.learning_rate = 3e-5
    if objective == "distillation":
        config.data.layout = "pad"
        config.data.batch_size = 256
        config.objective.real_prior = 1.0
        config.distillation.prompt = 256
        transformer(config.teacher, "7b")
        config.teacher.param_dtype = "bfloat16"  # it never changes
        config.init_from = (("teacher", "runs/7b", "generator"),)
    return config
