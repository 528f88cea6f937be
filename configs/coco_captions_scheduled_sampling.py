"""Captions of MSCOCO as in Bengio et al. (2015), the entry that scheduled sampling won with; full scale.

    python -m launch.prepare --config configs/coco_captions_scheduled_sampling.py     # once; needs tensorflow-cpu
    python -m launch --config configs/coco_captions_scheduled_sampling.py
    python -m launch --config configs/coco_captions_scheduled_sampling.py:likelihood

One LSTM of 512 units over words seen often enough, inverse-sigmoid decay, answers by a beam of 5. The paper's encoder
is a GoogLeNet trained on ImageNet; here convolutions are trained along with the rest, so its numbers are what to aim
at and not what to expect. It has not been run: COCO is 25 GB. Published, on the development set (table 1):

                                    BLEU-4   METEOR   CIDEr
    likelihood                        28.8     24.2    89.5
    likelihood + dropout              28.1     23.9    87.0
    always sampling                   11.2     15.7    49.7
    scheduled sampling                30.6     24.3    92.1
    uniform (keep_true = 1/2)         29.2     24.2    90.9
    likelihood, ensemble of 10        30.7     25.1    95.7
    scheduled sampling, ens. of 5     32.3     25.4    98.7
"""

from configs import base

VARIANTS = ("", "likelihood")


def get_config(variant: str = ""):
    base.require_variant(variant, VARIANTS)
    config = base.get_config()
    config.steps = 100_000
    config.data.name = "tfds:coco_captions"
    config.data.tfds.text_key = "captions/text"
    config.data.conditional = True
    config.data.image_size = 224
    config.data.tokenizer = "words"
    config.data.vocab_size = 9_000
    config.data.length = 64
    config.data.batch_size = 128
    config.model.width = 512
    config.objective.name = variant or "scheduled_sampling"
    if not variant:
        config.scheduled_sampling.keep_schedule = "inverse_sigmoid"
        config.scheduled_sampling.keep_k = 8_000.0  # half of the tokens fed are the model's from step 72,000 on
        config.scheduled_sampling.keep_true = 0.0
    config.optimizer.learning_rate = 1e-3
    config.optimizer.warmup_steps = 1000
    config.training.mode = "shard_map"
    config.evaluate.evaluators = ("likelihood", "transcription", "samples")
    config.evaluate.every_steps = 5000
    config.evaluate.transcription.beam = 5
    config.sample.temperature = 0.0
    return config
