"""What is said of a run before it begins."""

from __future__ import annotations

from rich.text import Text

from agents.config import RunConfig
from agents.distributed.launcher import launcher_shards
from agents.distributed.processes import join
from agents.language_policy import LanguagePolicy
from agents.recurrent.make import backbone_in_words
from agents.wording import rewards_in_words
from textgym.process import TextProcess


def introduction(config: RunConfig, policy: LanguagePolicy, process: TextProcess) -> Text:
    """What a run trains, on what, and for what reward.

    Args:
        config: Its settings.
        policy: What is trained.
        process: The decision process of its environment.
    """
    weights = [p for name, p in policy.named_parameters() if not name.startswith("q_net_target")]
    size, trained = (
        _count(sum(p.numel() for p in some))
        for some in (weights, [p for p in weights if p.requires_grad])
    )
    size += " parameters" + ("" if size == trained else f", {trained} of them trained")
    model = config.model
    if config.backbone is not None:
        model = backbone_in_words(config.backbone, config.tokenizer or config.model)
    count, where = join(config.device).count, f"on {policy.device}"
    if count > 1:
        parts = ", each with a part" if config.shard or launcher_shards() else ""
        where = f"in {count} processes {where}{parts}"
    reward = rewards_in_words(process.reward.current_weights)
    return Text.assemble(
        (config.algo.upper(), "bold"),
        " trains ",
        (model, "bold"),
        f" ({size}, {where}) on {process.task.name}: {config.timing} ",
        (reward, "bold"),
        " reward.",
    )


def _count(number: int) -> str:
    return f"{number / 1e6:.1f} M" if number >= 1e5 else f"{number:,}"
