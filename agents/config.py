"""The settings of a training run: command line, run file and documentation in one dataclass."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from textgym.templates import read_templates


def parse_spec(text: str) -> Any:
    """A task or reward as people type it.

    A name; JSON, `{"name": "length", "target": 20}`; or names with weights,
    `sentiment=1,length=0.1`.
    """
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{text!r} is no JSON: {error}. Write for instance "
                '{"name": "length", "target": 20}, in single quotes for the shell.'
            ) from error
    if "=" not in text:
        return text
    weights = {}
    for part in text.split(","):
        name, _, weight = part.partition("=")
        try:
            weights[name.strip()] = float(weight)
        except ValueError as error:
            raise ValueError(
                f"{text!r}: {weight!r} is no weight of {name.strip()!r}. Write for instance "
                "sentiment=1,length=0.1, or JSON for other parameters."
            ) from error
    return weights


def as_templates(given: Sequence[str] | None) -> tuple[str, ...] | None:
    """Templates as they are given: themselves, or the file that holds them.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If it is no list.
        ValueError: If it is malformed.
    """
    if given is None:
        return None
    if isinstance(given, str):
        raise TypeError(f"templates is a list of strings or of one file, got {given!r}.")
    if len(given) == 1 and given[0].endswith((".txt", ".jsonl")) and "{" not in given[0]:
        return tuple(template.text for template in read_templates(given[0]))
    return tuple(given)


Spec: TypeAlias = Annotated[
    Any,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME|JSON",
        instance_from_str=lambda words: parse_spec(words[0]),
        is_instance=lambda value: isinstance(value, (str, Mapping, Sequence)),
        str_from_instance=lambda value: [value if isinstance(value, str) else json.dumps(value)],
    ),
]


@dataclass(frozen=True)
class RunConfig:
    """Train a language model with a reward at every token."""

    output: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Directory of the run, which must not hold one yet. None makes a new one under runs/."""
    total_timesteps: int = 40_960
    """Tokens to write in training."""
    seed: int = 0
    """Seed of prompts and sampling; the same command with the same seed repeats the run."""

    model: str = "builtin"
    """Language model to train: a name (see `textgym list models`), a local directory in Hugging
    Face layout, a run, which stands for its model/, a GGUF file, or a hub id."""
    tokenizer: str | None = None
    """Tokenizer: as for the model; None takes the model's own."""
    chat: bool | None = None
    """Prompts as chat messages, or as plain text; None asks whether the tokenizer has a chat
    template."""
    task: Spec = "continuation"
    """Where prompts come from: a name (see `textgym list`), my_module:MyTask, or JSON such as
    {"name": "file", "path": "prompts.jsonl"}."""
    templates: tuple[str, ...] | None = None
    """Ways to put a prompt, such as "Question: {prompt}", or a file of them (.txt, .jsonl); None
    for the task's own."""
    prompts: Spec = "uniform"
    """How templates are chosen: "uniform", or by what they pay: "bandit", "ucb"."""
    reward: Spec | None = None
    """What is paid: a name (see `textgym list`), package.module:function, weights such as
    sentiment=1,length=0.1, or JSON such as {"name": "length", "target": 20}; None for the task's
    own."""
    timing: Literal["immediate", "delayed"] = "immediate"
    """Pay each token what the score gained by it, or the last token the whole score."""
    every: Literal["token", "word", "sentence"] = "token"
    """How often an immediate score is taken; less often for scores that cost."""
    max_new_tokens: int = 32
    """Budget of a completion, in tokens."""
    context_length: int | None = None
    """Tokens that an observation holds; None for what the longest prompt needs."""
    stop: tuple[str, ...] | None = None
    """Strings that end a text; None for the task's own, in plain text."""
    budget_is_terminal: bool = True
    """Treat the end of the budget as the end of the task. Otherwise SB3 adds the value that the
    critic gives to the cut text, which nothing holds in place when gamma is 1."""
    prompt_truncation: Literal["error", "left"] = "error"
    """What becomes of prompts that do not fit: refused, or only their end is kept."""

    algo: Literal["ppo", "sb3-ppo", "sb3-a2c"] = "ppo"
    """Algorithm: ours, or one of Stable-Baselines3, for comparison: tens of times slower, and
    without a KL penalty."""
    n_envs: int = 64
    """Texts written side by side."""
    n_steps: int = 32
    """Tokens that each of them gets between updates."""
    learning_rate: float = 1e-4
    """Step size of the optimizer. The default suits the built-in model; larger ones want less,
    about 1e-5; adapters want more, about 1e-3."""
    batch_size: int = 512
    """Tokens in a mini-batch (PPO); a whole rollout if that is smaller."""
    n_epochs: int = 2
    """Passes over the collected tokens in an update (PPO)."""
    gamma: float = 1.0
    """Discount. At 1, immediate and delayed rewards are the same objective."""
    gae_lambda: float = 0.9
    """How far ahead a reward is credited: bias (0) against variance (1) of the advantages."""
    clip_range: float = 0.2
    """Clipping of the probability ratio (PPO)."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Largest norm of a gradient."""
    target_kl: float | None = None
    """Stop an update early at this approximate KL divergence (PPO)."""
    kl_coef: float | None = None
    """What it costs to leave the model as it was: penalty on a token's reward for each nat by
    which it became likelier. None is 0.07 for ppo; Stable-Baselines3's algorithms know none."""
    target_kl_ref: float | None = None
    """Let kl_coef follow this KL divergence from the model as it was, in nats a text."""

    temperature: float = 1.0
    """Divides the logits, in writing and in learning."""
    top_k: int = 0
    """Write only the k likeliest tokens; 0 for all."""
    top_p: float = 1.0
    """Write only the likeliest tokens that together have this probability; 1 for all."""
    lora_rank: int | None = None
    """Train low-rank adapters of this rank; None trains the whole model."""
    lora_alpha: float | None = None
    """Adapters are scaled by this over their rank; None is twice the rank."""
    lora_targets: tuple[str, ...] | None = None
    """Names of the layers that get adapters, or "all-linear"; None for what PEFT takes for the
    family."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Number type of the transformer; weights, head and losses stay in float32."""
    gradient_checkpointing: bool = False
    """Less memory in an update, for about a third more work."""
    micro_batch_tokens: int = 8_192
    """Most tokens read at a time in an update: memory and speed, never the result."""

    eval_every: int | None = None
    """Tokens between two looks at validation prompts, by which the best model is kept; None for a
    fifth of all, 0 for none: then the last model is kept. Each look is eval_prompts texts more
    to write and to pay."""
    eval_prompts: int = 64
    """Validation prompts, and test prompts on which the model is judged before and after."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps"."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "templates", as_templates(self.templates))
        above_zero = (
            "total_timesteps",
            "max_new_tokens",
            "n_envs",
            "n_steps",
            "learning_rate",
            "batch_size",
            "n_epochs",
            "clip_range",
            "max_grad_norm",
            "eval_prompts",
            "temperature",
            "micro_batch_tokens",
        )
        for name in above_zero:
            _check(name, getattr(self, name), getattr(self, name) > 0, "above 0")
        for name in ("seed", "ent_coef", "vf_coef", "top_k"):
            _check(name, getattr(self, name), getattr(self, name) >= 0, "0 or above")
        for name in ("gamma", "gae_lambda"):
            _check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "from 0 to 1")
        for name in ("target_kl", "target_kl_ref", "lora_rank", "lora_alpha"):
            value = getattr(self, name)
            _check(name, value, value is None or value > 0, "above 0")
        _check(
            "eval_every",
            self.eval_every,
            self.eval_every is None or self.eval_every >= 0,
            "0 or above",
        )
        for name in ("lora_alpha", "lora_targets"):
            if self.lora_rank is None and getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is for adapters: give lora_rank, too."
                )
        _check("kl_coef", self.kl_coef, self.kl_coef is None or self.kl_coef >= 0, "0 or above")
        for name in ("kl_coef", "target_kl_ref"):
            value = getattr(self, name)
            if self.algo != "ppo" and value is not None:
                raise ValueError(
                    f"{name}={value} is for --algo ppo: {self.algo} has no reference model."
                )
        _check("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1")
        rollout = self.n_envs * self.n_steps
        _check("n_envs * n_steps", rollout, rollout > 1, "above 1")
        if self.algo == "sb3-ppo" and self.batch_size < rollout and rollout % self.batch_size:
            fits = max(d for d in range(1, self.batch_size + 1) if rollout % d == 0)
            raise ValueError(
                f"batch_size={self.batch_size} does not divide a rollout of n_envs * n_steps = "
                f"{self.n_envs} * {self.n_steps} = {rollout} tokens, so that the last mini-batch "
                f"of each pass would be smaller. Give batch_size={fits}, or other n_envs."
            )

    @property
    def validate_every(self) -> int:
        """Tokens between two looks at validation prompts; 0 for none."""
        return max(self.total_timesteps // 5, 1) if self.eval_every is None else self.eval_every

    def env_kwargs(self, split: str = "train") -> dict[str, Any]:
        """Arguments of `TextGen-v0`."""
        return {
            "task": self.task,
            "chat": self.chat,
            "templates": self.templates,
            "prompts": self.prompts,
            "split": split,
            "reward": self.reward,
            "timing": self.timing,
            "every": self.every,
            "tokenizer": self.tokenizer or self.model,
            "max_new_tokens": self.max_new_tokens,
            "context_length": self.context_length,
            "stop": self.stop,
            "budget_is_terminal": self.budget_is_terminal,
            "prompt_truncation": self.prompt_truncation,
        }

    def policy_kwargs(self) -> dict[str, Any]:
        """Arguments of `TransformerPolicy`."""
        return {
            "model": self.model,
            "lora": self.lora_kwargs(),
            "dtype": self.dtype,
            "gradient_checkpointing": self.gradient_checkpointing,
            "temperature": self.temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
        }

    def lora_kwargs(self) -> dict[str, Any] | None:
        """Arguments of `peft.LoraConfig`; None to train the whole model."""
        if self.lora_rank is None:
            return None
        alpha = 2 * self.lora_rank if self.lora_alpha is None else self.lora_alpha
        lora: dict[str, Any] = {"r": self.lora_rank, "lora_alpha": alpha}
        if self.lora_targets is not None:
            names = list(self.lora_targets)
            lora["target_modules"] = names[0] if names == ["all-linear"] else names
        return lora

    def algorithm_kwargs(self) -> dict[str, Any]:
        """Arguments of the algorithm."""
        every = {
            "learning_rate": self.learning_rate,
            "n_steps": self.n_steps,
            "gamma": self.gamma,
            "gae_lambda": self.gae_lambda,
            "ent_coef": self.ent_coef,
            "vf_coef": self.vf_coef,
            "max_grad_norm": self.max_grad_norm,
            "seed": self.seed,
            "device": self.device,
            "policy_kwargs": self.policy_kwargs(),
        }
        ppo = {
            "batch_size": min(self.batch_size, self.n_envs * self.n_steps),
            "n_epochs": self.n_epochs,
            "clip_range": self.clip_range,
            "target_kl": self.target_kl,
        }
        ours = {
            "kl_coef": 0.07 if self.kl_coef is None else self.kl_coef,
            "target_kl_ref": self.target_kl_ref,
            "micro_batch_tokens": self.micro_batch_tokens,
        }
        return {
            "ppo": {**every, **ppo, **ours},
            "sb3-ppo": {**every, **ppo},
            "sb3-a2c": every,
        }[self.algo]


def _check(name: str, value: Any, fits: bool, expected: str) -> None:
    if not fits:
        raise ValueError(f"{name} must be {expected}, got {value!r}.")
