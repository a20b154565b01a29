"""What a reward model says, a model that learned from people's preferences."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from agents.rewards.classifier import open_scorer, texts_of
from textgym.completion import Sample

if TYPE_CHECKING:
    from agents.backbone import DType
    from agents.rewards.sequence_scorer import SequenceScorer, Truncation

RECORD = "reward_training.json"
"""What `textgym train-reward` writes beside the model."""


@dataclass(frozen=True)
class RewardModel:
    """What a reward model thinks of the text, one number, from minus to plus infinity.

    Any `AutoModelForSequenceClassification` with one label will do, such as TRL's RewardTrainer
    and `textgym train-reward` leave. The model reads the prompt and the text as they stand, one
    behind the other and without a chat template; a prompt that needs one is to be written in it.
    Where the text does not go on where the prompt ends, as in a chat, a line break parts them;
    preferences for such texts are to be written likewise, with one at the end of the prompt.

    The unit is the model's own: the model holds one text to be better than another with
    probability sigmoid(difference), so that differences mean something and zero does not. The
    score of the empty text is what the model says of the prompt alone. Normalised, it is in
    standard deviations from the mean of held-out texts, so that it begins near the 0 from which
    immediate rewards count.

    Args:
        model: A local directory in Hugging Face layout, or a hub id.
        normalize: Whether to subtract the mean and divide by the standard deviation that
            `textgym train-reward` wrote into the directory. None does so if they are there.
        with_prompt: Whether the model reads the prompt and the text, or the text alone.
        add_eos: Whether to put the end-of-text token behind the text, as TRL does with plain
            texts in training; an unfinished text is then read as if it ended there.
        truncation: The end of a long text that is cut off, "left" or "right".
        device: "auto" (an accelerator where there is one), "cpu", "cuda", ...
        dtype: Number type of the model, "float32" or "bfloat16".

    Raises:
        MissingExtra: If torch is not installed.
        FileNotFoundError: If there is no such model.
        ValueError: If the model has not exactly one label, there is no mean to normalise by, or
            a parameter is unknown.

    Source: N. Stiennon et al., Learning to summarize from human feedback, NeurIPS 2020.
    """

    model: str
    normalize: bool | None = None
    with_prompt: bool = True
    add_eos: bool = False
    truncation: Truncation = "left"
    device: str = "auto"
    dtype: DType = "float32"

    score_range: ClassVar[tuple[float, float]] = (-math.inf, math.inf)
    needs: ClassVar[str] = "a reward model; torch, transformers"
    text_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        scorer = open_scorer("reward_model", self.model, self.truncation, self.device, self.dtype)
        if len(scorer.labels) != 1:
            raise ValueError(
                f"reward_model: {self.model!r} has {len(scorer.labels)} labels, "
                f"{', '.join(scorer.labels)}; expected one. Use the reward 'classifier' with one "
                "of them as its label."
            )
        if self.add_eos and scorer.eos_token is None:
            raise ValueError(
                f"reward_model: the tokenizer of {self.model!r} has no end-of-text token. Leave "
                "add_eos out."
            )
        path = Path(scorer.location, RECORD)
        if self.normalize and not path.is_file():
            raise ValueError(
                f"reward_model: there is no {path} to normalise by. Leave normalize out, or train "
                "the model with `textgym train-reward`."
            )
        unit = (0.0, 1.0)
        if self.normalize is not False and path.is_file():
            record = json.loads(path.read_text(encoding="utf-8"))
            unit = (float(record["mean"]), float(record["std"]))
            if not unit[1] > 0:
                raise ValueError(
                    f"reward_model: {path} has the standard deviation {unit[1]}, by which nothing "
                    "can be divided. Give normalize=False, or train the model longer."
                )
        object.__setattr__(self, "_scorer", scorer)
        object.__setattr__(self, "_unit", unit)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The model's logit for each sample, normalised if wanted."""
        scorer: SequenceScorer = vars(self)["_scorer"]
        mean, std = vars(self)["_unit"]
        end = scorer.eos_token if self.add_eos else ""
        texts = [f"{text}{end}" for text in texts_of(samples, self.with_prompt)]
        return [(float(r) - mean) / std for r in scorer.logits(texts, self.truncation)[:, 0]]
