"""Whether a training is well: what stops it at once, and what a person is warned of.

`agents.finite` looks for what is no number, `causes` says what that comes from, `diverged` is the
error that stops a training before it reaches the weights, `symptoms` knows what is worth a warning,
and `check` is the callback that warns.
"""

from agents.finite import first_non_finite
from agents.health.diverged import Diverged

__all__ = ["Diverged", "first_non_finite"]
