"""Causal language models as policies of sb3-contrib's MaskablePPO."""

from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy

from agents.policy import TransformerPolicyMixin


class MaskableTransformerPolicy(TransformerPolicyMixin, MaskableActorCriticPolicy):
    """`TransformerPolicy` for `MaskablePPO`, which reads the environment's `action_masks()`."""
