"""Peers that need TensorFlow 2.15, and so an interpreter of their own: requirements-bench-tensorflow.txt.

That interpreter reads this file and those that lead here, so they import nothing else but the standard library.
"""

import warnings
from collections.abc import Callable
from typing import Any

from launch.suites.works import Prepared, Work


def prepare(name: str, work: Work) -> Prepared:
    """A peer's side. Raises ImportError where TensorFlow or its addons are not installed."""
    import tensorflow as tf

    tf.random.set_seed(0)
    return {"tfa_scheduled": tfa_scheduled, "tf_rollouts": tf_rollouts}[name](work)


def lstm_parts(work: Work) -> tuple[Any, Any, Any]:
    """The embedding, whose last symbol begins a sequence, the cell and the output layer of a language model."""
    from tensorflow.keras import layers

    shape = work.shape
    return layers.Embedding(shape.vocab + 1, shape.width), layers.LSTMCell(shape.width), layers.Dense(shape.vocab)


def trainer(parts: tuple[Any, ...], loss_of: Callable[[], Any]) -> Prepared:
    """A compiled step of AdamW with the gradient's norm clipped, as gentrain's."""
    import tensorflow as tf

    optimizer = tf.keras.optimizers.AdamW(1e-3, global_clipnorm=1.0)

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = loss_of()
        variables = [variable for part in parts for variable in part.trainable_variables]
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    step()  # makes the variables
    return Prepared(lambda: step().numpy(), {"parameters": sum(part.count_params() for part in parts)})


def tfa_scheduled(work: Work) -> Prepared:
    """Scheduled sampling of tensorflow-addons; XLA does not compile its decoder."""
    import tensorflow as tf

    warnings.filterwarnings("ignore", r"\s*TensorFlow Addons")  # that its development has ended
    import tensorflow_addons as tfa

    shape, parts = work.shape, lstm_parts(work)
    embed, cell, output = parts
    tokens = tf.random.uniform((shape.batch, shape.length), maxval=shape.vocab, dtype=tf.int32)
    inputs = after_bos(tokens, shape.vocab)
    sampler = tfa.seq2seq.ScheduledEmbeddingTrainingSampler(
        1 - work.options["scheduled_sampling.keep_true"], embedding_fn=embed
    )
    decoder = tfa.seq2seq.BasicDecoder(cell, sampler, output, maximum_iterations=shape.length, output_time_major=True)

    def loss() -> Any:
        start = cell.get_initial_state(batch_size=shape.batch, dtype=tf.float32)
        lengths = tf.fill([shape.batch], shape.length)
        outputs, _, _ = decoder(embed(inputs), initial_state=start, sequence_length=lengths)
        return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(tf.transpose(tokens), outputs.rnn_output))

    return trainer(parts, loss)


def tf_rollouts(work: Work) -> Prepared:
    """SeqGAN's training of its generator without its critic: sequences are drawn and finished once more after each
    prefix, and the score function is weighted by a reward that costs nothing, the share of even tokens."""
    import tensorflow as tf

    shape, parts = work.shape, lstm_parts(work)
    embed, cell, output = parts
    unrolled = tf.keras.layers.RNN(cell, return_sequences=True)

    def draw(prefix: Any, given: Any) -> Any:
        """Sequences that begin with so many tokens of the prefix."""
        tokens = tf.TensorArray(tf.int32, shape.length, element_shape=(shape.batch,))
        token = tf.fill([shape.batch], shape.vocab)
        state = cell.get_initial_state(batch_size=shape.batch, dtype=tf.float32)
        for position in tf.range(given):
            _, state = cell(embed(token), state)
            token = prefix[:, position]
            tokens = tokens.write(position, token)
        for position in tf.range(given, shape.length):
            hidden, state = cell(embed(token), state)
            token = tf.random.categorical(output(hidden), 1, dtype=tf.int32)[:, 0]
            tokens = tokens.write(position, token)
        return tf.transpose(tokens.stack())

    def reward(tokens: Any) -> Any:
        return tf.reduce_mean(tf.cast(tokens % 2 == 0, tf.float32), axis=1)

    def loss() -> Any:
        tokens = draw(tf.zeros((shape.batch, shape.length), tf.int32), 0)
        rewards = tf.TensorArray(tf.float32, shape.length, element_shape=(shape.batch,))
        for given in tf.range(1, shape.length):
            rewards = rewards.write(given - 1, reward(draw(tokens, given)))
        rewards = rewards.write(shape.length - 1, reward(tokens))
        logits = output(unrolled(embed(after_bos(tokens, shape.vocab))))
        nll = tf.nn.sparse_softmax_cross_entropy_with_logits(tokens, logits)
        return tf.reduce_sum(nll * tf.stop_gradient(tf.transpose(rewards.stack())))

    return trainer(parts, loss)


def after_bos(tokens: Any, bos: int) -> Any:
    """What is fed before each token."""
    import tensorflow as tf

    return tf.pad(tokens[:, :-1], [[0, 0], [1, 0]], constant_values=bos)
