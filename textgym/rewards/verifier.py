"""The verifiers of reasoning_gym."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn

from textgym import verifiers
from textgym.rewards.parameters import check_choice

_WANTED_BY = "reward 'verifier'"


@dataclass(frozen=True)
class Verifier:
    r"""What a verifier of reasoning_gym gives for the answer, from 0 to 1; 1 counts as success.

    A verifier gets the answer and the entry of its dataset that the prompt is the question of. The
    task's reference is the entry's `answer`, and a column `metadata`, a JSON object, its
    `metadata`; a verifier that needs only one of them does without the other. As lines of a .jsonl
    file, with reasoning_gym's own names of the fields:

        for entry in reasoning_gym.create_dataset("chain_sum", size=1000, seed=0):
            file.write(json.dumps(entry) + "\n")

        gym.make(
            "TextGen-v0",
            task={"name": "file", "path": "sums.jsonl",
                  "prompt_column": "question", "reference_column": "answer"},
            reward={"name": "verifier", "dataset": "chain_sum"},
        )

    Many give partial credit to an answer that holds the right one or comes near it, some 0.01 or
    0.05 for any answer, even the empty text; most give that 0.

    Some verifiers run the answer, or what the task's file says beside the question, as Python
    code, by `eval` or by SymPy's parser. A model's text is nothing to be run unseen, nor is
    somebody's file, so they are refused unless `allow_eval` says otherwise; then take care that
    such code can do no harm, and mind that a text such as 1e999999 can take half a minute.

    A few verifiers raise for a text that they cannot read (boxnet, coin_flip, game_of_life,
    prime_factorization). Such a text scores 0, unless the reference makes the verifier raise too:
    then the prompt is at fault, and the run stops. Metadata that JSON changes, such as tuples, may
    no longer do: arc_agi and rearc then call right answers wrong. The task `reasoning_gym` makes
    prompts without a file, and keeps it.

    Args:
        dataset: Name of the dataset in reasoning_gym, such as "chain_sum".
        config: The dataset's configuration, where its verifier depends on it.
        extract: Where the answer is: "text", all of it without the space around; "last_line", the
            last line that is not blank; "tags", what stands between the last `<answer>` and
            `</answer>`, no answer being given until it is closed.
        allow_eval: Whether the verifier may run the text, or the task's file, as code.

    Raises:
        ValueError: If there is no such dataset, reasoning_gym refuses its configuration, `extract`
            is something else, or the verifier runs code and may not; when scoring, if the verifier
            asks for something that the prompt has not, or cannot read the reference.
        TypeError: When scoring, if the metadata is not a JSON object.
        MissingExtra: If reasoning_gym is not installed.

    Source: Z. Stojanovski et al., Reasoning Gym: Reasoning Environments for Reinforcement Learning
    with Verifiable Rewards, 2025.
    """

    dataset: str
    config: Mapping[str, Any] | None = None
    extract: str = "text"
    allow_eval: bool = False

    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    needs: ClassVar[str] = "a reference or metadata; reasoning_gym"
    success_threshold: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        check_choice("verifier", "extract", self.extract, verifiers.EXTRACTS)
        self._judge()
        verifiers.check_may_run(self.dataset, self.allow_eval, _WANTED_BY)

    def __call__(
        self,
        text: str,
        prompt: str,
        reference: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> float:
        """What the verifier gives."""
        entry = _Entry(question=prompt)
        known = _Entry()
        if reference is not None:
            entry["answer"] = reference
        if metadata is not None:
            if not isinstance(metadata, Mapping):
                raise TypeError(
                    f"verifier: the column 'metadata' holds a JSON object, got {metadata!r}; a "
                    ".jsonl file can have one, a .csv file cannot"
                )
            entry["metadata"] = known = _Entry(metadata)
        try:
            score = verifiers.score(self._judge(), verifiers.find_answer(text, self.extract), entry)
        finally:
            # Whether the verifier raised the KeyError or caught it, as many do.
            self._check(entry, known)
        return score

    def _judge(self) -> Any:
        return verifiers.dataset(self.dataset, self.config, _WANTED_BY)

    def _check(self, entry: _Entry, metadata: _Entry) -> None:
        if "answer" in entry.missing:
            raise ValueError(
                f"the verifier of {self.dataset!r} compares with a reference, and this prompt has "
                "none; give the entry's answer as the reference"
            )
        if "metadata" in entry.missing:
            raise ValueError(
                f"the verifier of {self.dataset!r} needs the entry's metadata, and this prompt "
                "has none; give the task a column 'metadata', in a .jsonl file a JSON object"
            )
        if metadata.missing:
            raise ValueError(
                f"the verifier of {self.dataset!r} needs {metadata.missing[0]!r} in the metadata, "
                f"which holds {', '.join(map(repr, metadata)) or 'nothing'}; was this prompt made "
                "by another dataset?"
            )


class _Entry(dict[str, Any]):
    """A mapping that remembers what it was asked for in vain."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.missing: list[Any] = []

    def __missing__(self, key: Any) -> NoReturn:
        self.missing.append(key)
        raise KeyError(key)
