"""What every policy of a causal language model has, whichever algorithm trains it."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from agents import adapters
from agents.backbone import Backbone, NextToken
from agents.models import no_progress_bars, tokenizer_files
from agents.reader import Reader, best_reader
from agents.sampling import Sampling
from textgym.files import atomic_directory
from textgym.tokenizer import Tokenizer

VALUE_HEAD_FILE = "value_head.safetensors"

_STALE = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json")
"""What would make a model's directory contradict itself after another was saved there."""


class LanguagePolicy(BasePolicy):
    """An SB3 policy of a causal language model and a value head on its trunk.

    This is what samplers, evaluation and run directories ask of one.
    """

    @property
    @abstractmethod
    def sampling(self) -> Sampling:
        """What is done to the model's logits before a token is drawn."""

    @property
    @abstractmethod
    def backbone(self) -> Backbone:
        """The language model."""

    @property
    @abstractmethod
    def value_head(self) -> nn.Linear:
        """Makes values of the model's hidden states."""

    @abstractmethod
    def next_logits(self, seen: NextToken) -> Tensor:
        """Logits of what the next token is drawn from, float32 (n, vocabulary)."""

    @abstractmethod
    def state_values(self, seen: NextToken) -> Tensor:
        """Values of the texts as they stand, float32 (n,)."""

    def set_temperature(self, temperature: float) -> None:
        """Divide the logits by another temperature from now on.

        Raises:
            ValueError: If this policy does not draw by chance.
        """
        if temperature != self.sampling.temperature:
            raise ValueError(f"{type(self).__name__} has no temperature, got {temperature}.")

    @contextmanager
    def at_temperature(self, temperature: float) -> Iterator[None]:
        """Divide the logits by another temperature for a while."""
        before = self.sampling.temperature
        self.set_temperature(temperature)
        try:
            yield
        finally:
            self.set_temperature(before)

    @cached_property
    def reader_class(self) -> Callable[[Backbone, int], Reader]:
        """How rollouts read: with a cache where the model's family allows it.

        Found out by comparing; a warning says so if it does not.
        """
        return best_reader(self.backbone)

    def save_pretrained(
        self, directory: str | Path, tokenizer: Tokenizer | None = None, *, merged: bool = False
    ) -> None:
        """Write the model as plain Hugging Face files, and the value head beside them.

        `AutoModelForCausalLM.from_pretrained(directory)` reads the model, and
        `policy_kwargs={"model": directory}` the model and the value head. All is written
        elsewhere first, so that a failure leaves what was there.

        Args:
            directory: Where to. Weights that are there already are replaced, other files stay.
            tokenizer: The environment's tokenizer, to be saved along. None copies the tokenizer's
                files from where the model came from, if they are there.
            merged: Of a model with an adapter, write a whole one with the adapter folded in,
                which needs neither PEFT nor the model that it was trained on; a second copy of
                the model is made for it. False writes the adapter alone. The policy is not
                changed.

        Raises:
            FileExistsError: If `directory` is a file.
            ValueError: If the adapter cannot be folded in.
        """
        model = adapters.merged(self.backbone.model) if merged else self.backbone.model
        with atomic_directory(directory, stale=_STALE) as temporary:
            if tokenizer is not None:
                _say_how_texts_end(model, tokenizer)
            with no_progress_bars():
                model.save_pretrained(temporary)
            (temporary / "README.md").unlink(missing_ok=True)  # PEFT's form, with nothing filled in
            head = {key: value.cpu() for key, value in self.value_head.state_dict().items()}
            save_file(head, temporary / VALUE_HEAD_FILE)
            if tokenizer is not None:
                tokenizer.save_pretrained(temporary)
            elif self.backbone.source is not None:
                for path in tokenizer_files(self.backbone.source):
                    shutil.copyfile(path, temporary / path.name)


def value_head(backbone: Backbone) -> nn.Linear:
    """A value head for a model: the one that was saved with it, or else one that says 0."""
    head = nn.Linear(backbone.width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    if backbone.source is not None:
        saved = Path(backbone.source, VALUE_HEAD_FILE)
        if saved.is_file():
            head.load_state_dict(load_file(saved))
    return head


def _say_how_texts_end(model: Any, tokenizer: Tokenizer) -> None:
    """Let a model that was made without a tokenizer stop where its texts end."""
    for config in (model.config, model.generation_config):
        if config is not None and config.eos_token_id is None:
            config.eos_token_id = tokenizer.eos_token_id


def language_policy(policy: Any) -> LanguagePolicy:
    """A policy as one of a language model.

    Raises:
        TypeError: If it is another.
    """
    if not isinstance(policy, LanguagePolicy):
        raise TypeError(f"expected a policy of a language model, got {type(policy).__name__}.")
    return policy
