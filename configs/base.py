"""Every key there is: its default, its unit, and what follows from it.

A config file starts from `get_config()` and changes what differs. Keys are locked: an unknown or mistyped key is an
error that names the nearest one. In all sections 0 (or an empty string or tuple) means "off" unless the comment says
more.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

# Megatron-style tensor parallelism for models/transformer.py: columns of the first matmul, rows of the second.
# Each rule is (regular expression on the parameter's path, mesh axis of each dimension); layers are stacked in
# dimension 0.
TRANSFORMER_RULES = (
    (r"layers/(query|key|value|gate|up)/kernel", (None, "fsdp", "tensor")),
    (r"layers/(out|down)/kernel", (None, "tensor", "fsdp")),
    (r"embed$", ("tensor", "fsdp")),
)


def grid(values: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], ...]:
    """Every combination of values: {"seed": (0, 1), "model.width": (64, 128)} is a sweep of four variants."""
    return tuple(dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values()))


def get_config() -> ConfigDict:
    config = ConfigDict()
    config.seed = 0  # of parameters, data order and every draw of the run
    config.steps = 1000  # updates; schedules are functions of the step, so changing this changes them

    # Variants to run one after another, each in a folder of its own, ending in one report across them: dicts of
    # overrides by full key, like {"optimizer.learning_rate": 1e-2}, or grid({...}) of them. Empty: one run.
    config.sweep = ()
    config.figures = ()  # files of gentrain/figures: pictures of theory, and of a sweep beside it, for the report

    config.data = ConfigDict()
    # What to train on: 'surnames', 'shakespeare', 'cmudict' (phonemes of spellings), 'digits', 'mnist5k', 'fashion',
    # 'text:PATH' (a file or a directory of *.txt), 'images:DIR', 'tfds:NAME' (prepare once with
    # `python -m launch.prepare`), 'captions:SOURCE' (what stands where in pairs of an image source's pictures),
    # 'mixture' of the sources below, or 'world:NAME': table, markov, hmm, oracle, gaussian, bimodal, blobs, ring, grid.
    config.data.name = "surnames"
    # Sources of a mixture: (name, weight, repeats) triples; weights are normalised, repeats 0 = as often as needed,
    # otherwise a run that would need more passes over that source is refused.
    config.data.sources = ()
    config.data.batch_size = 64  # examples a step over all devices and processes
    config.data.length = 64  # tokens a row (text); longer documents are cut into rows, or an error with a context
    config.data.layout = "pad"  # 'pad': one document (or piece of one) a row; 'pack': as many whole documents as fit
    config.data.tokenizer = (
        "chars"  # 'bytes', 'chars', 'words' or 'sentencepiece'; learned on train, kept in the workdir
    )
    config.data.vocab_size = 0  # most symbols a words or sentencepiece vocabulary may have; 0 = all words, 8192 pieces
    config.data.unit = "document"  # of a text file: 'line' (each line a document) or 'document' (the whole file)
    config.data.valid_fraction = (
        0.05  # of documents (or of the end of a single long one) held out, where no split is given
    )
    config.data.test_fraction = 0.05
    config.data.text_key = "text"  # the feature of a TFDS set that holds the text; 'a/b': b within a, as captions/text
    config.data.image_size = 0  # side to resize images to (square), in pixels; 0 = as they are
    config.data.levels = (
        0  # grey levels to quantise images to; 0 = as they are (images as sequences: one token a value)
    )
    config.data.pairs = 0  # of 'captions:SOURCE': pairs to train on; 0 = as many as the source has training images
    config.data.conditional = False  # give an image's class, or what a text is about, to the model as its context
    config.data.prefetch = 2  # batches made ahead in a thread; 0 = made when they are needed

    config.world = ConfigDict()  # distributions that are known exactly, as data: data.name = 'world:NAME'
    config.world.vocab = 0  # symbols of a sequence; 0 = 3 in 'table', 'markov' and 'hmm', 5000 in 'oracle'
    config.world.length = 0  # of a sequence; 0 = 4, and 20 in 'oracle'
    config.world.states = 3  # hidden states of 'hmm'
    config.world.concentration = 0.3  # of the Dirichlet law that probabilities are drawn from; small = peaked
    config.world.seed = 0  # of what a world draws for itself, not of its samples
    config.world.path = ""  # of an oracle's weights (.npz), instead of a draw by seed
    config.world.probabilities = ()  # of 'table', nested by position, instead of a draw by seed
    config.world.covariance = ((1.0, 0.9), (0.9, 1.0))  # of 'gaussian'
    config.world.examples = 0  # training examples; 0 = each one new
    config.world.held_out = 10_000  # examples of valid and of test

    config.model = ConfigDict()
    # 'lstm', 'transformer'; in worlds also 'tabular', 'factorised', 'gaussian', 'mlp'; images all at once: 'dcgan',
    # 'resnet', 'r3gan'
    config.model.name = "lstm"
    config.model.width = 128  # of embeddings, hidden states and the residual stream; channels at full resolution
    config.model.layers = 1
    config.model.dropout = 0.0  # probability of zeroing an activation in training
    config.model.tie_embeddings = False  # output matrix = input embeddings, transposed
    config.model.param_dtype = "float32"  # parameters, optimiser state and gradients
    config.model.compute_dtype = "float32"  # activations and matmuls; logits and losses are float32 always
    config.model.heads = 4  # transformer: query heads
    config.model.kv_heads = 4  # transformer: key/value heads (< heads: grouped-query attention)
    config.model.mlp_width = 0  # transformer: hidden width of SwiGLU; 0 = 8/3 of width, rounded up to a multiple of 32
    config.model.rope_base = 10_000.0  # transformer: longest wavelength of the rotary positions
    # transformer: how jax.nn.dot_product_attention is computed, 'xla' everywhere, or 'cudnn', the fused kernel of
    # NVIDIA GPUs, which never holds (heads, length, length) weights: for bfloat16 and heads of 8 to 128 numbers
    config.model.attention = "xla"
    config.model.scan_layers = True  # transformer: one compiled layer, scanned; False unrolls (faster for few layers)
    config.model.latent = 2  # mlp and makers of images: numbers of noise that an example is made from
    config.model.mean = 0.0  # gaussian: where it starts, in every coordinate
    config.model.scale = 1.0  # gaussian: the standard deviation it starts with
    # Positions whose logits are in memory at once, in losses and while tokens are found in parallel: for large
    # vocabularies, where the logits of all outweigh the rest; the backward pass makes them again. 0 = all.
    config.model.logits_chunk = 0
    config.model.remat = "none"  # kept for the backward pass: 'none' = all, 'dots' = matmul outputs, 'full' = inputs

    config.objective = ConfigDict()
    config.objective.name = "likelihood"  # a file of gentrain/objectives
    config.objective.real_prior = 0.5  # pi, the weight on the data: towards 0 KL[P||Q], towards 1 KL[Q||P]
    # Weight of the uniform law in the target; adversarial: of "generated" in the target of real examples, which moves D
    # away from its optimum.
    config.objective.label_smoothing = 0.0
    config.objective.z_loss = 0.0  # weight of log(normaliser)^2, which keeps logits from drifting
    # scheduled_sampling: the probability of feeding the true token (1 = likelihood, 0 = always sampling), by step i,
    # k being keep_k: 'constant', 'linear' k - keep_slope*i, 'exponential' k^i, 'inverse_sigmoid' k / (k + exp(i/k))
    config.objective.keep_schedule = "constant"
    config.objective.keep_true = 0.5  # the constant, and what the others never fall below
    config.objective.keep_k = 1.0  # linear: where it starts; exponential: below 1; inverse_sigmoid: steps, 1 or more
    config.objective.keep_slope = 0.0  # linear: how much it falls a step
    config.objective.coin = "token"  # 'token': one coin for each; 'sequence': one for a whole row
    # What is fed where the coin says so: a token, 'sample' or 'argmax', or a mixture of tokens, 'soft_argmax' or
    # 'gumbel_softmax', whose weights are softmax(soft_alpha * (logits + noise)).
    config.objective.feed = "sample"
    config.objective.soft_alpha = 1.0  # large = nearly one token
    config.objective.feed_gradient = False  # let the gradient through the mixtures that are fed
    config.objective.draw = "inverse_cdf"  # of 'sample': 'inverse_cdf' (cheap) or 'gumbel' (fewer passes in mode exact)
    config.objective.label = (
        "true"  # what is learned after a fed prefix: the data's token, or 'expert', the world's law
    )
    # How fed tokens are found: 'sequential', token by token; 'exact', the same tokens by passes over many positions at
    # once; 'passes:K', K such passes, which is faithful from K = data.length - 1 on.
    config.objective.mode = "sequential"
    config.objective.window = 0  # exact: positions a pass looks at; 0 = all (a window needs model 'transformer')
    config.objective.max_passes = 0  # exact: give up after so many, the rest being fed as it stands; 0 = never

    # adversarial: what the generator descends, 'js' (the dial), 'reverse_kl', 'forward_kl', 'non_saturating' (the dial
    # the wrong way round), 'hinge' or 'relativistic' (no dial)
    config.objective.generator_loss = "js"
    config.objective.critic_steps = 1  # moves of the critic a step, each on new samples of the generator
    config.objective.prefixes = "all"  # of sequences: the critic learns on 'all' prefixes (where it has them) or 'last'
    # Sequences against a critic of prefixes: it learns the law of the data alone, and the log-probability that the
    # generator itself gives to a token is subtracted.
    config.objective.known_density = False
    # What the critic sees of a batch: all its data and as many samples, with 'weights' pi and 1 - pi, or 'counts': data
    # in pi of its rows and samples in the rest.
    config.objective.allocation = "weights"
    # All of these move D away from its optimum, and so the generator from the divergence that it is said to descend:
    config.objective.r1 = 0.0  # adds r1 / 2 of the critic's mean squared slope at real examples
    config.objective.r2 = 0.0  # and at generated ones
    config.objective.spectral_norm = False  # divides the critic's matrices by their largest singular value, if above 1
    # What pictures, data and samples alike, go through before the critic: 'flip', 'shift', 'cutout', 'brightness',
    # 'contrast' (gentrain/augment.py); for small data.
    config.objective.augment = ()
    # How sequences are differentiated: 'score' (unbiased), 'straight_through' or 'gumbel_softmax' (biased).
    config.objective.estimator = "score"
    config.objective.temperature = 1.0  # of the mixtures of straight_through and gumbel_softmax
    # score: what a token is rewarded with, 'sequence' (the whole's reward), 'dense' (the same, less that of its prefix,
    # from a critic of prefixes), 'discounted' (ScratchGAN: sum of discount^k (2 D - 1)) or 'rollouts' (SeqGAN)
    config.objective.reward = "dense"
    config.objective.discount = 0.9  # a token
    config.objective.rollouts = 16  # sequences drawn after each prefix
    config.objective.baseline = "leave_one_out"  # what rewards are compared with: 'moving_average', or 'none'
    config.objective.baseline_decay = 0.9  # a step, of the moving average
    config.objective.entropy_weight = 0.0  # adds so many times the generator's entropy (sequences) to its reward
    config.objective.likelihood_weight = 0.0  # adds so many times -log Q(data) to the generator's loss, at step 0 …
    config.objective.likelihood_final = 0.0  # … and at the last; a straight line between

    config.critic = config.model.copy_and_resolve_references()  # the same keys, of the adversarial critic
    # 'mlp' (points, or whole sequences), the makers of images, or any sequence model, as a critic of prefixes
    config.critic.name = "lstm"

    config.optimizer = ConfigDict()
    config.optimizer.name = "adamw"  # any optimiser of optax by its name; it gets those of the keys below that it takes
    config.optimizer.b1 = 0.9
    config.optimizer.b2 = 0.99
    config.optimizer.eps = 1e-8
    config.optimizer.momentum = 0.0
    config.optimizer.weight_decay = 0.0  # on matrices only
    config.optimizer.clip_norm = 1.0  # global norm of the gradient above which it is scaled down
    config.optimizer.learning_rate = 1e-3  # peak
    config.optimizer.critic_scale = 1.0  # learning rate of the critic or mediator by the generator's
    config.optimizer.schedule = "cosine"  # 'constant', 'linear', 'cosine' or 'rsqrt', after the warm-up
    config.optimizer.warmup_steps = 0  # linear from 0 to the peak
    config.optimizer.final_fraction = 0.1  # of the peak, where linear and cosine end

    config.training = ConfigDict()
    config.training.microbatches = 1  # parts of a batch whose gradients are added up, to save memory; same result
    # 'jit' (the compiler places communication) or 'shard_map' (one explicit sum over devices, each of which has all
    # parameters). Over more devices than one the compiler sums the gradients of an LSTM's recurrent kernels at every
    # time step, and gathers all activations for those of grouped convolutions (r3gan): there shard_map sends far less.
    config.training.mode = "jit"
    config.training.ema_decay = 0.0  # decay a step of the averaged parameters that are then evaluated
    config.training.max_skipped = (
        10  # non-finite updates are never applied; this many in a row end the run with exit code 3
    )
    # A run of several processes in which a step takes longer than this many seconds, and than ten of the longest step
    # before, ends with exit code 42, to be started again: a process hangs. 0 = wait for ever.
    config.training.stuck_seconds = 60.0

    config.mesh = ConfigDict()  # devices along each axis; one may be -1: all that are left
    config.mesh.replica = 1  # slowest network: copies of the model on separate pods
    config.mesh.data = -1  # rows of the batch
    config.mesh.fsdp = 1  # rows of the batch, and parameters split with them
    config.mesh.tensor = 1  # parts of each matmul
    config.mesh.rules = ()  # (regex, axes) pairs for parameters, like TRANSFORMER_RULES; others split over fsdp

    config.checkpoint = ConfigDict()
    config.checkpoint.every_steps = 1000
    config.checkpoint.every_seconds = 600.0  # whichever comes first; the last step is always saved
    config.checkpoint.keep_last = 2
    config.checkpoint.keep_every = 0  # steps; checkpoints at its multiples are never deleted
    # Workdir of another run whose newest checkpoint gives the parameters to start from, of the players that it has.
    config.init_from = ""

    config.log = ConfigDict()
    config.log.every_steps = 50  # steps between lines of metrics.jsonl
    config.log.tensorboard = True
    config.log.profile = ()  # (first, last): steps to trace into profile/ by jax.profiler; () = none

    config.evaluate = ConfigDict()
    config.evaluate.every_steps = 500  # the end is always evaluated
    config.evaluate.evaluators = ("likelihood", "samples")  # files of gentrain/evaluators
    config.evaluate.split = "valid"  # or 'test'
    config.evaluate.batches = 0  # of the split; 0 = all of it
    config.evaluate.beam = 1  # evaluator 'transcription': prefixes kept at every token; 1 = greedy, time grows with it
    # Of Witten-Bell n-grams learned on train: the longest that 'baselines' compares with, and the one that 'exposure'
    # takes for the law of the data.
    config.evaluate.ngram_order = 0
    config.evaluate.examples = (
        512  # samples that 'exposure' and 'fidelity' (and as many held-out ones), 'frontier' and 'modes' draw
    )

    config.sample = ConfigDict()
    # Documents or images: of each class in turn, texts to the contexts of the split's first rows.
    config.sample.count = 16
    config.sample.length = 0  # of a document at most, in tokens; 0 = data.length
    config.sample.temperature = 1.0
    config.sample.top_k = 0  # draw from the k likeliest tokens only
    config.sample.top_p = 1.0  # draw from the likeliest tokens that make up this mass (nucleus)
    return config
