"""The model that a candidate was before it was trained."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from agents.backbone import Backbone, DType
from agents.candidates import Candidate, find
from agents.models import has_adapter, without_adapter
from agents.policy import TransformerPolicy
from textgym.tokenizer import Tokenizer


class NoReferenceError(ValueError):
    """Why a candidate cannot be compared with a model from before its training."""


@dataclass(frozen=True)
class Untrained:
    """The model that a candidate was before its training.

    Attributes:
        name: What it is called.
        backbone: The model; the candidate's own where that is the same, or holds it.
        adapted: Whether an adapter of it has to be switched off.
    """

    name: str
    backbone: Backbone
    adapted: bool = False

    def active(self) -> AbstractContextManager[None]:
        """A context in which `backbone` is the untrained model."""
        return without_adapter(self.backbone.model) if self.adapted else nullcontext()


class References:
    """Finds the untrained model of each candidate, and keeps the last that was loaded.

    Args:
        reference: What the user says it is, for all candidates; None if it has to be found.
        candidates: All candidates: one that another was trained from is its own reference.
        dtype: What transformers compute in.
        device: Where they compute.

    Attributes:
        device: Where models compute.
    """

    def __init__(
        self,
        reference: str | None,
        candidates: Sequence[Candidate],
        dtype: DType,
        device: torch.device,
    ) -> None:
        self._given = None if reference is None else find(reference)
        self._candidates = candidates
        self._dtype: DType = dtype
        self.device = device
        self._loaded: tuple[tuple[str, int, int], Backbone] | None = None

    def of(
        self, candidate: Candidate, policy: TransformerPolicy, tokenizer: Tokenizer
    ) -> Untrained:
        """The untrained model of a candidate.

        Args:
            candidate: Which.
            policy: The policy with its model.
            tokenizer: Its tokenizer.

        Raises:
            NoReferenceError: If there is none, or it has another vocabulary.
            FileNotFoundError: If the one that the user gave is not there.
        """
        if self._given is None and has_adapter(policy.backbone.model):
            name = candidate.run.model if candidate.run is not None else "its base model"
            return Untrained(name, policy.backbone, adapted=True)
        reference = self._given or self._began_with(candidate)
        if candidate.is_at(reference.source):
            return Untrained(reference.name, policy.backbone)
        try:
            backbone = self._load(reference, policy.backbone, tokenizer)
        except FileNotFoundError as error:
            if self._given is not None:
                raise
            raise NoReferenceError(f"it was trained from {reference.name}: {error}") from error
        return Untrained(reference.name, backbone)

    def _began_with(self, candidate: Candidate) -> Candidate:
        if candidate.run is not None:
            return find(candidate.run.model)
        for other in self._candidates:
            if other.run is not None and candidate.is_at(find(other.run.model).source):
                return candidate
        raise NoReferenceError("nothing says what it was trained from; --reference does")

    def _load(self, reference: Candidate, trained: Backbone, tokenizer: Tokenizer) -> Backbone:
        key = (reference.source, trained.num_tokens, trained.context_length)
        others = Tokenizer.from_pretrained(reference.source)
        if _vocabulary(others) != _vocabulary(tokenizer):
            raise NoReferenceError(f"{reference.name} has another vocabulary")
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # its memory is wanted
            try:
                backbone = Backbone(
                    reference.source,
                    trained.num_tokens,
                    trained.context_length,
                    dtype=self._dtype,
                )
            except ValueError as error:
                raise NoReferenceError(str(error)) from error
            self._loaded = key, backbone.requires_grad_(False).to(self.device)
        return self._loaded[1]


def _vocabulary(tokenizer: Tokenizer) -> dict[str, int]:
    return tokenizer.backend.get_vocab(with_added_tokens=True)
