"""The peers' side of a work, each as its own users would write it; imported where they are installed."""

from collections.abc import Callable
from typing import Any

from launch.suites.works import BEAM, TENSORFLOW, Prepared, Shape, Work


def prepare(name: str, work: Work) -> Prepared:
    """A peer's side. Raises ImportError where the peer is not installed."""
    if name in TENSORFLOW:
        from launch.suites import tensorflow_peers

        return tensorflow_peers.prepare(name, work)
    import torch

    torch.manual_seed(0)
    if name == "torch_images":
        from launch.suites import torch_images

        return torch_images.prepare(work)
    return {"gpt2": gpt2, "llama": llama, "torch_lstm": torch_lstm, "torch_scheduled": torch_scheduled, "trl": trl}[
        name
    ](work)


def trainer(model: Any, loss_of: Callable[[], Any]) -> Prepared:
    """A step of AdamW with the gradient's norm clipped, as gentrain's."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def do() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of().backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return Prepared(do, size_of(model))


def size_of(model: Any) -> dict[str, float]:
    return {"parameters": sum(p.numel() for p in model.parameters())}


def tokens_of(work: Work) -> Any:
    import torch

    return torch.randint(0, work.shape.vocab, (work.shape.batch, work.shape.length))


def gpt2(work: Work) -> Prepared:
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = work.shape
    config = GPT2Config(
        vocab_size=shape.vocab, n_positions=shape.length + 1, n_embd=shape.width, n_layer=shape.layers,
        n_head=shape.heads, n_inner=shape.mlp_width, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    return transformer(GPT2LMHeadModel(config), work)


def llama(work: Work) -> Prepared:
    from transformers import LlamaForCausalLM

    return transformer(LlamaForCausalLM(llama_config(work.shape)), work)


def llama_config(shape: Shape) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocab, hidden_size=shape.width, intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, max_position_embeddings=shape.length + 1,
        tie_word_embeddings=False, bos_token_id=0, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip


def transformer(model: Any, work: Work) -> Prepared:
    import torch

    tokens = tokens_of(work)
    if work.does == "train":
        return trainer(model, lambda: model(input_ids=tokens, labels=tokens).loss)
    model.train(False)
    how = {"do_sample": True, "top_k": 0} if work.does == "sample" else {"do_sample": False, "num_beams": BEAM}

    def generate() -> None:
        with torch.no_grad():
            model.generate(tokens[:, :1], **how, max_new_tokens=work.shape.length, use_cache=True,
                           attention_mask=torch.ones_like(tokens[:, :1]))  # fmt: skip

    return Prepared(generate, size_of(model))


def trl(work: Work) -> Prepared:
    """A step of GKDTrainer on the student's own sequences, as its training loop takes it, without what it logs."""
    import tempfile

    import torch
    from datasets import Dataset
    from tokenizers import Tokenizer, models
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
    from trl.experimental.gkd import GKDConfig, GKDTrainer

    shape, prompt = work.shape, work.options["distillation.prompt"]
    words = Tokenizer(models.WordLevel({str(token): token for token in range(shape.vocab)}, unk_token="0"))
    arguments = GKDConfig(
        tempfile.mkdtemp(), lmbda=1.0, beta=work.options["objective.real_prior"], temperature=1.0, use_cpu=True,
        max_new_tokens=shape.length - prompt, per_device_train_batch_size=shape.batch, learning_rate=1e-3,
        bf16=False, activation_checkpointing=False, report_to=[],
    )  # fmt: skip
    trainer = GKDTrainer(
        LlamaForCausalLM(llama_config(shape)), LlamaForCausalLM(llama_config(shape)), arguments,
        data_collator=list, train_dataset=Dataset.from_dict({"messages": [[]]}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", eos_token="0"),
    )  # fmt: skip
    model, optimizer, tokens = trainer.model, trainer.create_optimizer(), tokens_of(work)
    trainer.generation_config.eos_token_id = None  # all draw as many tokens
    trainer.current_gradient_accumulation_steps = 1  # as its loop says
    seen = torch.ones_like(tokens)

    def do() -> None:
        optimizer.zero_grad(set_to_none=True)
        prompts = {"prompts": tokens[:, :prompt], "prompt_attention_mask": seen[:, :prompt]}
        trainer.training_step(model, {"input_ids": tokens, "attention_mask": seen, "labels": tokens, **prompts})
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return Prepared(do, size_of(model))


def lstm_language_model(work: Work) -> Any:
    import torch

    class LanguageModel(torch.nn.Module):
        def __init__(self, shape):
            super().__init__()
            self.embed = torch.nn.Embedding(shape.vocab + 1, shape.width)
            self.lstm = torch.nn.LSTM(shape.width, shape.width, shape.layers, batch_first=True)
            self.output = torch.nn.Linear(shape.width, shape.vocab)

        def forward(self, inputs, state=None):
            x, state = self.lstm(self.embed(inputs), state)
            return self.output(x), state

    return LanguageModel(work.shape)


def torch_lstm(work: Work) -> Prepared:
    import torch

    model, tokens, shape = lstm_language_model(work), tokens_of(work), work.shape
    bos = torch.full((shape.batch, 1), shape.vocab)
    inputs = torch.cat([bos, tokens[:, :-1]], dim=1)
    if work.does == "train":
        return trainer(
            model, lambda: torch.nn.functional.cross_entropy(model(inputs)[0].flatten(0, 1), tokens.flatten())
        )

    def sample() -> None:
        with torch.no_grad():
            token, state = bos, None
            for _ in range(shape.length):
                logits, state = model(token, state)
                token = torch.multinomial(logits[:, 0].softmax(-1), 1)

    return Prepared(sample, size_of(model))


def torch_scheduled(work: Work) -> Prepared:
    """Bengio et al.'s loop: the true token with probability keep_true, else one drawn from the last logits."""
    import torch

    model, tokens, shape = lstm_language_model(work), tokens_of(work), work.shape
    keep_true = work.options["scheduled_sampling.keep_true"]

    def loss() -> Any:
        token, state, logits = torch.full((shape.batch,), shape.vocab), None, []
        for position in range(shape.length):
            of_position, state = model(token[:, None], state)
            logits.append(of_position[:, 0])
            drawn = torch.multinomial(logits[-1].detach().softmax(-1), 1)[:, 0]
            token = torch.where(torch.rand(shape.batch) < keep_true, tokens[:, position], drawn)
        return torch.nn.functional.cross_entropy(torch.stack(logits, 1).flatten(0, 1), tokens.flatten())

    return trainer(model, loss)
