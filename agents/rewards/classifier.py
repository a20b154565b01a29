"""What a text classifier says: any label of any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from textgym.completion import Sample
from textgym.extras import require
from textgym.registry import did_you_mean

if TYPE_CHECKING:
    from agents.backbone import DType
    from agents.rewards.sequence_scorer import SequenceScorer, Truncation

Output: TypeAlias = Literal["probability", "log_odds"]
"""What is paid for a label."""


@dataclass(frozen=True)
class Classifier:
    """The probability that a text classifier gives to the wanted label, from 0 to 1.

    With `output="log_odds"` it is log(p / (1 - p)), from minus to plus infinity, which goes on
    growing where the probability is as good as 1.

    Any `AutoModelForSequenceClassification` will do: encoders and decoders; labels of which one
    applies (softmax) or of which each may (sigmoid), and models of a single logit (sigmoid).

    The score of the empty text is what the model says of it, and the immediate reward counts from
    0: the first token is also paid what the model thinks of a text that says nothing yet. A text
    of more tokens than the model can read is cut.

    Texts are read in batches and remembered. With bfloat16 a score depends in its third digit on
    the texts that were read beside it.

    Args:
        model: A local directory in Hugging Face layout, or a hub id.
        label: The label that pays, as the model's config calls it.
        with_prompt: Whether the model reads the prompt and the text, or the text alone. A text
            that does not go on where the prompt ends, as in a chat, is put on a line of its own.
        output: "probability" or "log_odds".
        multi_label: Whether each label may apply or just one of them; None for what the model's
            config says ("multi_label_classification" as its problem_type).
        truncation: The end of a long text that is cut off: "left" keeps what was written last,
            "right" keeps the beginning, and what is written beyond earns nothing.
        device: "auto" (an accelerator where there is one), "cpu", "cuda", ...
        dtype: Number type of the model, "float32" or "bfloat16".

    Raises:
        MissingExtra: If torch is not installed.
        FileNotFoundError: If there is no such model.
        ValueError: If the model has no such label or no trained classifier, or a parameter is
            unknown.
    """

    model: str
    label: str
    with_prompt: bool = False
    output: Output = "probability"
    multi_label: bool | None = None
    truncation: Truncation = "left"
    device: str = "auto"
    dtype: DType = "float32"

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[str] = "a classifier; torch, transformers"
    text_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.output not in get_args(Output):
            raise ValueError(
                f"classifier: output is 'probability' or 'log_odds', got {self.output!r}."
            )
        scorer = open_scorer("classifier", self.model, self.truncation, self.device, self.dtype)
        if scorer.problem_type == "regression":
            raise ValueError(
                f"classifier: {self.model!r} was trained to give numbers, not labels (its "
                "problem_type is 'regression'). Use the reward 'reward_model'."
            )
        if self.label not in scorer.labels:
            raise ValueError(
                f"classifier: {self.model!r} has no label {self.label!r}; "
                f"{did_you_mean(str(self.label), scorer.labels)}."
            )
        if self.output == "log_odds":
            object.__setattr__(self, "score_range", (-np.inf, np.inf))
        object.__setattr__(self, "_scorer", scorer)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """The probability or log-odds of the label for each sample."""
        scorer: SequenceScorer = vars(self)["_scorer"]
        logits = scorer.logits(texts_of(samples, self.with_prompt), self.truncation)
        each = self.multi_label
        if each is None:
            each = scorer.problem_type == "multi_label_classification"
        odds = log_odds(logits, scorer.labels.index(self.label), each)
        values = odds if self.output == "log_odds" else np.exp(-np.logaddexp(0.0, -odds))
        return [float(value) for value in values]


@dataclass(frozen=True)
class Toxicity:
    """Minus the probability that the text is toxic, by a classifier, from -1 to 0.

    The empty text is as toxic as the classifier finds it, which is hardly.

    Args:
        model: A local directory in Hugging Face layout, or a hub id.
        label: What the model calls toxic.
        device: As for the reward "classifier".
        dtype: As for the reward "classifier".

    Raises:
        MissingExtra: If torch is not installed.
        FileNotFoundError: If there is no such model.
        ValueError: If the model has no such label, or a parameter is unknown.

    Source: L. Hanu and Unitary team, Detoxify, 2020, for the default model.
    """

    model: str = "unitary/toxic-bert"
    label: str = "toxic"
    device: str = "auto"
    dtype: DType = "float32"

    score_range: ClassVar[tuple[float, float]] = (-1.0, 0.0)
    needs: ClassVar[str] = "a classifier; torch, transformers"
    text_only: ClassVar[bool] = True

    def __post_init__(self) -> None:
        classifier = Classifier(self.model, self.label, device=self.device, dtype=self.dtype)
        object.__setattr__(self, "_classifier", classifier)

    def score(self, samples: Sequence[Sample]) -> list[float]:
        """Minus the probability of the label for each sample."""
        classifier: Classifier = vars(self)["_classifier"]
        return [-probability for probability in classifier.score(samples)]


def open_scorer(
    reward: str, model: str, truncation: Truncation, device: str, dtype: DType
) -> SequenceScorer:
    """The model of a reward, by its parameters; raises as the rewards say."""
    require("torch", extra="agents", wanted_by=f"reward {reward!r}")
    # Only now, since `textgym list` reads docstrings and does not wait for torch.
    from agents.rewards.sequence_scorer import sequence_scorer

    if truncation not in ("left", "right"):
        raise ValueError(f"{reward}: truncation is 'left' or 'right', got {truncation!r}.")
    try:
        return sequence_scorer(model, device, dtype)
    except ValueError as error:
        raise ValueError(f"{reward}: {error}") from error


def texts_of(samples: Sequence[Sample], with_prompt: bool) -> list[str]:
    """What a model reads of some samples: prompt and text, or the text alone.

    Both as they stand where the text goes on where the prompt ends; else the text, if there is any,
    begins a line.
    """
    if not with_prompt:
        return [sample.text for sample in samples]
    return [f"{sample.prompt}{_line_break(sample)}{sample.text}" for sample in samples]


def _line_break(sample: Sample) -> str:
    """What parts a prompt from a text that does not go on with it."""
    apart = not sample.continues and sample.prompt and sample.text
    return "\n" if apart and not sample.prompt.endswith("\n") else ""


def log_odds(logits: NDArray[np.float32], label: int, each: bool) -> NDArray[np.float64]:
    r"""The log-odds of a label, float64 (k,).

    With $z$ the logits: $z_l$ if each label may apply or there is one only, else
    $z_l - \log \sum_{j \ne l} e^{z_j}$.

    Args:
        logits: Of each text, (k, labels).
        label: Which of them.
        each: Whether each label may apply, or just one.
    """
    wanted = logits[:, label].astype(np.float64)
    if each or logits.shape[1] == 1:
        return wanted
    others = np.delete(logits, label, axis=1).astype(np.float64)
    result: NDArray[np.float64] = wanted - np.logaddexp.reduce(others, axis=1)
    return result
