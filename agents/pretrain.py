"""Training a small causal language model from scratch, tokenizer included.

`python -m agents.pretrain CORPUS... --output DIR` leaves a directory in the Hugging Face layout: a
byte-level BPE tokenizer and a Llama-shaped model. It can be stopped at any time and goes on where
it stopped when it is started again in the same way.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import platform
import shlex
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np
import tokenizers
import torch
import transformers
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM
from tyro.conf import Positional

from agents.corpus import fingerprint, read_corpus, split_documents
from agents.pretrained_files import train_tokenizer, write_model_directory

CHECKPOINT = "checkpoint.pt"
FREE_ON_RESUME = ("corpus", "output", "checkpoint_every", "sample_prompts", "device", "resume")


@dataclass(frozen=True)
class PretrainConfig:
    """Train a byte-level BPE tokenizer and a small causal language model from scratch."""

    corpus: Positional[tuple[Path, ...]]
    """Files (.txt, .md, .jsonl, .json, ChatterBot .yml) and directories, searched recursively.
    List a file again to train on it twice as often."""
    output: Path
    """Directory for the model and its checkpoint. Run the same command again to go on."""
    vocab_size: int = 2048
    """Most tokens that the tokenizer may have: 256 bytes, 2 special tokens, merges."""
    context: int = 256
    """Tokens that the model sees at once."""
    width: int = 192
    """Size of the hidden states."""
    layers: int = 4
    """Number of transformer layers."""
    heads: int = 6
    """Attention heads of a layer; must divide the width into even parts."""
    feed_forward: int = 512
    """Inner size of the gated feed-forward blocks."""
    batch_size: int = 8
    """Windows of `context` tokens in an optimiser step."""
    epochs: float = 16.0
    """Passes over the training tokens; may be a fraction."""
    learning_rate: float = 3e-3
    """Peak learning rate of AdamW, reached after the warm-up; then a cosine down to 2% of it."""
    weight_decay: float = 0.1
    """Decoupled weight decay of the matrices (not of the norms)."""
    warmup: int = 200
    """Steps of linear warm-up."""
    gradient_clip: float = 1.0
    """Largest norm of the gradient."""
    validation_fraction: float = 0.03
    """Share of the documents to hold out, in contiguous chunks."""
    eval_every: int = 500
    """Steps between held-out evaluations; the best model so far is kept in the output."""
    checkpoint_every: int = 500
    """Steps between checkpoints. Ctrl-C also writes one."""
    sample_prompts: tuple[str, ...] = ("",)
    """Prompts to continue at every evaluation; an empty one starts a new document."""
    license: str = "unknown"
    """Licence of the trained model for its card: an identifier such as apache-2.0."""
    seed: int = 0
    """Seed of the held-out split, the initial weights and the order of the windows."""
    device: str = "auto"
    """`auto` (a GPU where there is one), `cpu`, `cuda`, `mps`, ..."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Matrix products in bfloat16 or not; `auto`: where the hardware has bfloat16 units."""
    resume: bool = True
    """Go on from the checkpoint in the output; `--no-resume` starts anew and overwrites."""

    def __post_init__(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            ValueError: A field is out of range; the message names it.
        """
        positive = ("context", "width", "layers", "heads", "feed_forward", "batch_size", "epochs")
        for name in (*positive, "learning_rate", "gradient_clip", "eval_every", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be greater than 0.")
        if self.vocab_size < 258:
            raise ValueError(
                f"vocab_size is {self.vocab_size}; it must be at least 258 (256 bytes and 2 "
                f"special tokens)."
            )
        if self.width % (2 * self.heads):
            raise ValueError(
                f"width is {self.width} and heads is {self.heads}; rotary positions need a width "
                f"that is a multiple of 2 * heads = {2 * self.heads}."
            )


def learning_rate_at(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up, then a cosine from `peak` to 2% of it at the last of `steps` steps.

    Args:
        step: Index of the step, from 0.
        steps: Steps of the whole run.
        warmup: Steps of warm-up; at most a tenth of the run is used.
        peak: Highest learning rate.
    """
    warmup = min(warmup, steps // 10)
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return peak * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))


def token_stream(tokenizer: Tokenizer, documents: list[str]) -> NDArray[np.int64]:
    """All documents as `<eos> document <eos> document ... <eos>`, shape `(tokens,)`."""
    encodings = tokenizer.encode_batch(documents)
    eos = tokenizer.encode("").ids
    return np.concatenate([np.asarray(e.ids, dtype=np.int64) for e in encodings] + [np.array(eos)])


def windows_per_epoch(tokens: int, context: int) -> int:
    """How many windows `epoch_windows` cuts from a stream of `tokens` tokens."""
    return max(0, (tokens - 1) // context - 1)


def epoch_windows(
    stream: NDArray[np.int64], context: int, eos: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Where the windows of one epoch start, in random order.

    A grid of step `context` and random offset, every point of it moved to the nearest start of a
    document within half a window. So most windows begin as a prompt does, at the start of a
    document, and long documents are still seen to their end.

    Args:
        stream: Token ids, shape `(tokens,)`.
        context: Tokens that the model sees.
        eos: Token id that starts every document.
        rng: Draws offset and order.

    Returns:
        Start indices, shape `(windows_per_epoch,)`; `start + context + 1 <= tokens` for each.
    """
    count = windows_per_epoch(len(stream), context)
    starts = rng.integers(context) + context * np.arange(count)
    documents = np.flatnonzero(stream == eos)
    after = np.searchsorted(documents, starts).clip(max=len(documents) - 1)
    before = (after - 1).clip(min=0)
    for nearest in (documents[after], documents[before]):
        closer = np.abs(nearest - starts) <= context // 2
        starts = np.where(closer & (nearest + context < len(stream)), nearest, starts)
    return rng.permutation(starts)


def resolve_device(name: str) -> torch.device:
    """`auto` becomes the accelerator where there is one, else the CPU."""
    if name != "auto":
        return torch.device(name)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator if accelerator is not None else torch.device("cpu")


def resolve_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto` becomes bfloat16 where the hardware multiplies it faster than float32."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    units = torch.cpu.get_capabilities() if device.type == "cpu" else {}
    fast = any(units.get(unit, False) for unit in ("avx512_bf16", "amx_bf16"))
    return torch.bfloat16 if fast else torch.float32


def sequence_loss(model: LlamaForCausalLM, windows: torch.Tensor) -> torch.Tensor:
    """Sum of `-log p` in nats over the tokens after the first of each window `(n, length)`."""
    logits = model(input_ids=windows[:, :-1], use_cache=False).logits
    return functional.cross_entropy(
        logits.float().flatten(0, 1), windows[:, 1:].flatten(), reduction="sum"
    )


class Trainer:
    """One run: data, model, optimiser, and the step that it has reached."""

    def __init__(self, config: PretrainConfig, console: Console) -> None:
        self.config = config
        self.console = console
        self.device = resolve_device(config.device)
        self.dtype = resolve_precision(config.precision, self.device)
        files = read_corpus(config.corpus)
        training, held_out = split_documents(files, config.validation_fraction, config.seed)
        self.identity = {
            **{k: v for k, v in _as_data(config).items() if k not in FREE_ON_RESUME},
            "corpus": fingerprint(files),
        }
        saved = self._load_checkpoint()
        self.tokenizer = (
            Tokenizer.from_str(saved["tokenizer"])
            if saved
            else train_tokenizer(training, config.vocab_size)
        )
        self.eos: int = self.tokenizer.encode("").ids[0]
        self.stream = token_stream(self.tokenizer, training)
        self.held_out = token_stream(self.tokenizer, held_out)
        self.held_out_bytes = sum(len(text.encode()) for text in held_out)
        self.steps_per_epoch = (
            windows_per_epoch(len(self.stream), config.context) // config.batch_size
        )
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"The corpus has {len(self.stream):,} training tokens, less than one batch of "
                f"{config.batch_size} windows of {config.context} tokens. Give more text, or lower "
                f"--batch-size or --context."
            )
        self.steps = max(1, round(config.epochs * self.steps_per_epoch))

        torch.manual_seed(config.seed)
        self.model = build_model(config, self.tokenizer.get_vocab_size(), self.eos)
        self.model.to(self.device)
        matrices = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": config.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.95),
            fused=self.device.type in ("cpu", "cuda"),
        )
        self.order = -1, np.empty(0, dtype=np.int64)
        self.step = 0
        self.running = math.nan
        self.seconds = 0.0
        self.best = math.inf
        self.history: list[dict[str, float]] = []
        if saved:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.best, self.history = saved["best"], saved["history"]
            self.running = saved["running"]

    def run(self) -> dict[str, Any]:
        """Trains to the last step; returns what `training.json` holds."""
        parameters = sum(p.numel() for p in self.model.parameters())
        self.console.print(
            f"{parameters:,} parameters, vocabulary {self.tokenizer.get_vocab_size()}, "
            f"{len(self.stream):,} training and {len(self.held_out):,} held-out tokens; "
            f"steps {self.step} to {self.steps} ({self.steps_per_epoch} an epoch) on "
            f"{self.device.type}, {str(self.dtype).removeprefix('torch.')}"
        )
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
        )
        with _interruptible() as interrupted, Progress(*columns, console=self.console) as bar:
            task = bar.add_task("", total=self.steps, completed=self.step)
            since_step, since_time = self.step, time.perf_counter()
            while self.step < self.steps:
                started = time.perf_counter()
                loss = self._train_step()
                self.seconds += time.perf_counter() - started
                first = math.isnan(self.running)
                self.running = loss if first else 0.98 * self.running + 0.02 * loss
                self.step += 1
                last = self.step == self.steps
                elapsed = time.perf_counter() - since_time
                batch_tokens = self.config.batch_size * self.config.context
                rate = (self.step - since_step) * batch_tokens / elapsed
                bar.update(
                    task,
                    completed=self.step,
                    description=f"loss {self.running:.3f}  {rate:,.0f} tok/s",
                )
                if last or self.step % self.config.eval_every == 0:
                    self._evaluate(rate)
                    since_step, since_time = self.step, time.perf_counter()
                if interrupted or last or self.step % self.config.checkpoint_every == 0:
                    self._save_checkpoint()
                if interrupted and not last:
                    raise KeyboardInterrupt
        (self.config.output / CHECKPOINT).unlink()
        return self.record()

    def record(self) -> dict[str, Any]:
        """What was done so far, as plain data."""
        best = min(self.history, key=lambda row: row["held_out_loss"])
        tokens = best["step"] * self.config.batch_size * self.config.context
        return {
            "command": command_line(self.config),
            "arguments": _as_data(self.config),
            "corpus_sha256": self.identity["corpus"],
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "vocab_size": self.tokenizer.get_vocab_size(),
            "training_tokens": len(self.stream),
            "held_out_tokens": len(self.held_out),
            "held_out_bytes": self.held_out_bytes,
            **best,
            "tokens_seen": tokens,
            "epochs_seen": round(tokens / len(self.stream), 2),
            "device": self.device.type,
            "precision": str(self.dtype).removeprefix("torch."),
            "history": self.history,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "tokenizers": tokenizers.__version__,
            },
        }

    def _train_step(self) -> float:
        config = self.config
        epoch, batch = divmod(self.step, self.steps_per_epoch)
        starts = self._epoch_order(epoch)[
            batch * config.batch_size : (batch + 1) * config.batch_size
        ]
        windows = self.stream[starts[:, None] + np.arange(config.context + 1)]
        rate = learning_rate_at(self.step, self.steps, config.warmup, config.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        with self._autocast():
            total = sequence_loss(self.model, torch.from_numpy(windows).to(self.device))
        loss = total / (config.batch_size * config.context)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.gradient_clip)
        self.optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(
                f"The loss became {value} at step {self.step}. Lower --learning-rate "
                f"({config.learning_rate}) or use --precision float32."
            )
        return value

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        if self.order[0] != epoch:
            # A function of seed and epoch, so a resumed run needs no saved generator.
            rng = np.random.default_rng([self.config.seed, epoch])
            self.order = epoch, epoch_windows(self.stream, self.config.context, self.eos, rng)
        return self.order[1]

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """Mean `-log p` in nats a token over the held-out stream, each token predicted once."""
        self.model.eval()
        context, total = self.config.context, 0.0
        stream = torch.from_numpy(self.held_out).to(self.device)
        whole = (len(stream) - 1) // context
        index = torch.arange(context + 1, device=self.device)
        starts = torch.arange(whole, device=self.device) * context
        batches = [stream[part[:, None] + index] for part in starts.split(self.config.batch_size)]
        batches.append(stream[None, whole * context :])
        with self._autocast():
            for batch in batches:
                if batch.shape[1] > 1:
                    total += float(sequence_loss(self.model, batch))
        return total / (len(stream) - 1)

    @torch.no_grad()
    def sample(self, prompt: str, max_new_tokens: int = 60) -> str:
        """Continues a prompt at temperature 0.8 until the end of the document."""
        self.model.eval()
        ids = torch.tensor([self.tokenizer.encode(prompt).ids], device=self.device)
        with torch.random.fork_rng():
            torch.manual_seed(self.step)
            written = self.model.generate(  # type: ignore[operator]
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=min(max_new_tokens, self.config.context - ids.shape[1]),
                do_sample=True,
                temperature=0.8,
            )
        return str(self.tokenizer.decode(written[0].tolist(), skip_special_tokens=True))

    def _evaluate(self, rate: float) -> None:
        loss = self.held_out_loss()
        bits = loss * (len(self.held_out) - 1) / self.held_out_bytes / math.log(2)
        self.history.append(
            {
                "step": self.step,
                "training_loss": round(self.running, 4),
                "held_out_loss": round(loss, 4),
                "bits_per_byte": round(bits, 4),
                "seconds": round(self.seconds, 1),
            }
        )
        left = (self.steps - self.step) * self.config.batch_size * self.config.context / rate
        self.console.print(
            f"step {self.step}/{self.steps}  training {self.running:.4f}  held-out {loss:.4f} "
            f"nats/token, {bits:.4f} bits/byte  {rate:,.0f} tok/s  {left / 60:.1f} min left"
        )
        for prompt in self.config.sample_prompts:
            self.console.print(f"[dim]{escape(self.sample(prompt))}[/dim]")
        if loss < self.best:
            self.best = loss
            write_model_directory(
                self.config.output, self.model, self.tokenizer, self.record(), self.config.license
            )

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32
        )

    def _save_checkpoint(self) -> None:
        path = self.config.output / CHECKPOINT
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        state = {
            "identity": self.identity,
            "tokenizer": self.tokenizer.to_str(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "running": self.running,
            "best": self.best,
            "history": self.history,
        }
        torch.save(state, temporary)
        os.replace(temporary, path)

    def _load_checkpoint(self) -> dict[str, Any] | None:
        output = self.config.output
        path = output / CHECKPOINT
        if output.exists() and not output.is_dir():
            raise ValueError(f"--output {output} is a file; give a directory.")
        if not self.config.resume:
            path.unlink(missing_ok=True)
            return None
        if not path.exists():
            if (output / "config.json").exists():
                raise ValueError(
                    f"--output {output} already holds a finished model. Choose another directory, "
                    f"or pass --no-resume to train a new one in its place."
                )
            return None
        saved: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        before = saved["identity"]
        changed = [
            f"{name} was {before.get(name)!r} and is now {self.identity.get(name)!r}"
            for name in sorted({*before, *self.identity})
            if before.get(name) != self.identity.get(name)
        ]
        if changed:
            raise ValueError(
                f"{path} belongs to another run: {'; '.join(changed)}. Restore these to go on, "
                f"choose another --output, or pass --no-resume to start anew."
            )
        return saved


def build_model(config: PretrainConfig, vocab_size: int, eos: int) -> LlamaForCausalLM:
    """A randomly initialised Llama with tied embeddings, in float32."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=config.width,
            intermediate_size=config.feed_forward,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            max_position_embeddings=config.context,
            tie_word_embeddings=True,
            bos_token_id=eos,
            eos_token_id=eos,
            pad_token_id=eos + 1,
        )
    )


def pretrain(config: PretrainConfig, console: Console | None = None) -> dict[str, Any]:
    """Trains (or goes on training) a tokenizer and a model, and writes them to `config.output`.

    Args:
        config: What to train on and how.
        console: Where progress goes; the terminal by default.

    Returns:
        What `training.json` in the output holds: arguments, tokens seen, losses, versions.

    Raises:
        FileNotFoundError: A path of the corpus does not exist.
        ValueError: The corpus cannot be used, or the output holds another run.
        FloatingPointError: The loss became infinite or not a number.
        KeyboardInterrupt: Ctrl-C, after the checkpoint was written.
    """
    return Trainer(config, console or Console()).run()


def command_line(config: PretrainConfig) -> str:
    """The command that makes this config; fields at their defaults are left out."""
    words = ["textgym", "pretrain", *(str(path) for path in config.corpus)]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name == "corpus" or value == field.default:
            continue
        flag = field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{flag}")
        else:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{flag}", *(str(item) for item in values)]
    return shlex.join(words)


def _as_data(config: PretrainConfig) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    return data


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Ctrl-C fills the list that is yielded; a second one stops at once."""
    received: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield received
    finally:
        signal.signal(signal.SIGINT, previous)


def main() -> None:
    """Command line of `python -m agents.pretrain`."""
    pretrain(tyro.cli(PretrainConfig))


if __name__ == "__main__":
    main()
