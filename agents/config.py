"""The settings of a training run: command line, run file and documentation in one dataclass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from agents import schedules
from agents.algorithms.by_name import ALGORITHMS, NamedAlgorithm
from agents.config_checks import SCHEDULES, check_settings, foreign_settings
from agents.replay import TokenReplayBuffer
from agents.schedules import ScheduleSpec
from agents.specs import Spec, as_templates, as_vocabulary

_FROM_SCRATCH = {"learning_rate": 1e-3, "kl_coef": 0.0}
"""What suits a network that knows nothing yet, and has nothing to stay near to."""


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
    backbone: Spec | None = None
    """A recurrent network from scratch instead, of which the model is only the tokenizer: "rnn",
    "lstm", "gru", or JSON such as {"name": "lstm", "width": 256, "layers": 2}."""
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
    vocabulary: tuple[str, ...] | None = None
    """Words whose tokens may be written, or one text file with them; None for all tokens."""
    stop: tuple[str, ...] | None = None
    """Strings that end a text; None for the task's own, in plain text."""
    budget_is_terminal: bool = True
    """Treat the end of the budget as the end of the task. Otherwise SB3 adds the value that the
    critic gives to the cut text, which nothing holds in place when gamma is 1."""
    prompt_truncation: Literal["error", "left"] = "error"
    """What becomes of prompts that do not fit: refused, or only their end is kept."""

    algo: Literal[
        "ppo", "a2c", "reinforce", "grpo", "rloo", "dqn", "sb3-ppo", "sb3-a2c", "sb3-dqn"
    ] = "ppo"
    """Algorithm (see `textgym list algorithms`). Those of Stable-Baselines3 are for comparison:
    tens of times slower, and without a KL penalty."""
    n_envs: int = 64
    """Texts written side by side."""
    n_steps: int = 32
    """Tokens that each of them gets between updates (ppo, a2c, dqn)."""
    n_episodes: int | None = None
    """Whole texts between updates (reinforce, grpo, rloo; ppo and a2c instead of n_steps). None
    for one of each environment, and with ppo and a2c for n_steps."""
    group_size: int = 8
    """Texts of each prompt that are compared (grpo, rloo)."""
    credit: Literal["token", "sequence"] = "token"
    """Credit a token with what was paid from it on, or with all of its text (grpo, rloo)."""
    baseline: bool = True
    """Learn what to expect, and count only what is above it (reinforce)."""
    learning_rate: ScheduleSpec | None = None
    """Step size of the optimizer, or a schedule such as linear:1e-4:0. None is 1e-4, and 3e-4 for
    reinforce and dqn, which suits the built-in model, and 1e-3 for a network from scratch; larger
    models want less, about a tenth; adapters want more, about ten times."""
    batch_size: int | None = None
    """Tokens in a mini-batch (ppo, grpo, rloo, dqn); a whole rollout if that is smaller. None is
    512."""
    n_epochs: int | None = None
    """Passes over the collected tokens in an update (ppo, grpo, rloo, dqn). None is 2, and 4 for
    dqn."""
    gamma: float = 1.0
    """Discount. At 1, immediate and delayed rewards are the same objective."""
    gae_lambda: float | None = None
    """How far ahead a reward is credited: bias (0) against variance (1) of the advantages (ppo,
    a2c). None is 0.9."""
    clip_range: ScheduleSpec = 0.2
    """Clipping of the probability ratio (ppo, grpo, rloo), or a schedule."""
    ent_coef: ScheduleSpec = 0.0
    """Weight of the entropy bonus, or a schedule such as linear:0.01:0."""
    vf_coef: float = 0.5
    """Weight of the value loss (ppo, a2c, reinforce)."""
    max_grad_norm: float = 0.5
    """Largest norm of a gradient."""
    target_kl: float | None = None
    """Stop an update early at this approximate KL divergence (ppo, grpo, rloo)."""
    kl_coef: float | None = None
    """What it costs to leave the model as it was: penalty on a token's reward for each nat by
    which it became likelier (with grpo a term of the loss). None is 0.07, and 0 for a network from
    scratch; Stable-Baselines3's algorithms and dqn know none."""
    target_kl_ref: float | None = None
    """Let kl_coef follow this KL divergence from the model as it was, in nats a text."""
    sft_coef: float = 0.0
    """Share of imitation in the loss: of the task's references, or of sft_corpus."""
    sft_corpus: tuple[Path, ...] = ()
    """Files and directories whose documents are imitated instead of references."""
    epsilon: ScheduleSpec = "linear:0.1:0.02:0.5"
    """Share of tokens that are drawn by chance (dqn), or a schedule."""
    double: bool = False
    """Choose the next token by one network and value it by the other (dqn)."""
    buffer_size: int = 100_000
    """Tokens that are remembered (dqn)."""
    learning_starts: int = 1_024
    """Tokens to write before the first update (dqn)."""
    target_update_interval: int = 1_024
    """Tokens between two updates of the target network (dqn)."""

    temperature: ScheduleSpec = 1.0
    """Divides the logits, in writing and in learning. A schedule explores first and exploits then:
    linear:1.3:0.8, stages:1.3:0.8:0.5 (of the run), or explore-then-exploit. The model is judged
    at the last."""
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
    shard: bool = False
    """Of several processes (torchrun, accelerate launch), let each hold a part only of weights,
    gradients and optimizer state (FSDP2): for models that are too large for one device."""

    eval_every: int | None = None
    """Tokens between two looks at validation prompts, by which the best model is kept; None for a
    fifth of all, 0 for none: then the last model is kept. Each look is eval_prompts texts more
    to write and to pay."""
    eval_prompts: int = 64
    """Validation prompts, and test prompts on which the model is judged before and after."""
    checkpoint_every: float = 10.0
    """Seconds between two checkpoints, with which --resume goes on; more where saving takes long,
    and 0 for one before every rollout. They never change the result."""
    keep_checkpoints: int = 2
    """How many of them are kept, the newest."""
    device: str = "auto"
    """"auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps"."""
    loggers: tuple[str, ...] = ("tensorboard",)
    """Where figures go beside progress.csv: any of tensorboard, wandb, stdout, json, log, or
    package.module:KVWriterClass for a writer of your own; none for none of them."""
    quiet: bool = False
    """Print only warnings, errors and the result."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "templates", as_templates(self.templates))
        check_settings(self)

    @property
    def algorithm(self) -> NamedAlgorithm:
        """The algorithm."""
        return ALGORITHMS[self.algo]

    def of_algorithm(self, name: str) -> Any:
        """A setting, or if that is None what suits the algorithm, and a network from scratch."""
        value = getattr(self, name)
        if value is None and self.backbone is not None and name in _FROM_SCRATCH:
            return _FROM_SCRATCH[name]
        return self.algorithm.defaults.get(name) if value is None else value

    @property
    def final_temperature(self) -> float:
        """What divides the logits at the end of the run, and where the model is judged."""
        return schedules.final(self.temperature)

    def as_data(self) -> dict[str, Any]:
        """The settings for a run file; those that the algorithm does not take are left out."""
        foreign = foreign_settings(self)
        return {key: value for key, value in asdict(self).items() if key not in foreign}

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
            "vocabulary": as_vocabulary(self.vocabulary),
            "stop": self.stop,
            "budget_is_terminal": self.budget_is_terminal,
            "prompt_truncation": self.prompt_truncation,
        }

    def policy_kwargs(self) -> dict[str, Any]:
        """Arguments of the policy."""
        network = {"model": self.model} if self.backbone is None else {"backbone": self.backbone}
        drawing = {
            "temperature": self.final_temperature,
            "top_k": self.top_k,
            "top_p": self.top_p,
        }
        return {
            **network,
            "lora": self.lora_kwargs(),
            "dtype": self.dtype,
            "gradient_checkpointing": self.gradient_checkpointing,
            **(drawing if "top_k" in self.algorithm.settings else {}),
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
        """Arguments of the algorithm, but for the texts that it may imitate."""
        named = self.algorithm
        taken = {"learning_rate", "gamma", "max_grad_norm", *named.settings}
        taken -= {"temperature", "top_k", "top_p", "sft_corpus"}
        kwargs = {name: self.of_algorithm(name) for name in sorted(taken)}
        for name in SCHEDULES & kwargs.keys():
            kwargs[name] = schedules.make(kwargs[name])
        rollout = self.n_envs * self.n_steps
        if self.algo == "sb3-ppo":  # which warns of one that is larger
            kwargs["batch_size"] = min(kwargs["batch_size"], rollout)
        if "buffer_size" in kwargs:  # learns from old tokens, too, about as much of them
            kwargs["train_freq"] = (kwargs.pop("n_steps"), "step")
            passes = kwargs.pop("n_epochs") * rollout
            kwargs["gradient_steps"] = max(passes // kwargs["batch_size"], 1)
            epsilon = kwargs["epsilon"]
            if named.is_stock:
                del kwargs["epsilon"]
                kwargs.update(_exploration(epsilon), replay_buffer_class=TokenReplayBuffer)
        temperature = schedules.make(self.temperature)
        if not isinstance(temperature, float):
            kwargs["temperature"] = temperature
        common = {"seed": self.seed, "device": self.device, "policy_kwargs": self.policy_kwargs()}
        return {**kwargs, **common}


def _exploration(epsilon: Any) -> dict[str, float]:
    """A schedule of chance as Stable-Baselines3's DQN takes it."""
    if isinstance(epsilon, float):
        epsilon = schedules.Linear(epsilon, epsilon)
    if not isinstance(epsilon, schedules.Linear):
        raise ValueError(
            f"epsilon={epsilon} is no linear schedule, and sb3-dqn takes no other. Give for "
            "instance linear:0.3:0.02:0.5, or --algo dqn."
        )
    return {
        "exploration_initial_eps": epsilon.start,
        "exploration_final_eps": epsilon.end,
        "exploration_fraction": epsilon.fraction,
    }
