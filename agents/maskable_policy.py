"""Causal language models as policies of sb3-contrib's MaskablePPO."""

from typing import Any

from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy

from agents.policy import TransformerPolicyMixin


class MaskableTransformerPolicy(TransformerPolicyMixin, MaskableActorCriticPolicy):
    """`TransformerPolicy` for `MaskablePPO`, which reads the environment's `action_masks()`.

    Raises:
        ValueError: If `top_k` or `top_p` is given: they could leave out all that the mask allows.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.sampling.top_k or self.sampling.top_p < 1:
            raise ValueError(
                "MaskableTransformerPolicy takes no top_k and no top_p: they could leave out every "
                "token that the environment allows. The mask is a filter already; use temperature."
            )
