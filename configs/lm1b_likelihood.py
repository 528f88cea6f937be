"""The One Billion Word benchmark with a 1.0 B-parameter Transformer on a pod of 256 TPU v5e chips, by maximum
likelihood.

    python -m launch.prepare --config configs/lm1b_likelihood.py        # once, on one machine; needs tensorflow-cpu
    python -m launch --config configs/lm1b_likelihood.py --workdir /shared/lm1b                      # on every host

Sentences are packed to rows of 256 sentencepiece tokens. Parameters and their moments are split over 16 chips (fsdp)
and copied over 16 such groups (data). It has not been run: there was no pod. `--dry_run` prints what each chip holds.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.steps = 100_000
    config.data.name = "tfds:lm1b"
    config.data.tokenizer = "sentencepiece"
    config.data.vocab_size = 32_000 - 1  # and the end token
    config.data.layout = "pack"
    config.data.length = 256
    config.data.batch_size = 4096
    config.model.name = "transformer"
    config.model.width = 2048
    config.model.layers = 20
    config.model.transformer.heads = 16
    config.model.transformer.kv_heads = 8
    config.model.transformer.tie_embeddings = True
    config.model.compute_dtype = "bfloat16"
    config.model.transformer.remat = "dots"
    config.likelihood.z_loss = 1e-4
    config.optimizer.b2 = 0.95
    config.optimizer.weight_decay = 0.1
    config.optimizer.learning_rate = 3e-4
    config.optimizer.warmup_steps = 2000
    config.mesh.data = 16
    config.mesh.fsdp = 16
    config.checkpoint.every_steps = 2500
    config.checkpoint.keep_every = 25_000
    config.log.every_steps = 100
    config.evaluate.every_steps = 5000
    config.evaluate.batches = 50
    config.sample.top_p = 0.95
    return config
