"""`textgym tune`: a search over the settings of a training, on one machine or a cluster.

Optuna says what to try and what to give up; Ray says where it runs. Trials are plain Ray tasks,
and the study lies in a journal beside them, which one process writes, the driver. Ray Tune would
bring both together, but it keeps checkpoints, logs and directories of its own: here a trial is an
ordinary run, whose checkpoints are exact, so that all that has to be kept of it is which trial it
is. It also tries again whatever failed: here only a trial whose worker died is, and one that a
person must mend is not. And it would add pandas, pyarrow and tensorboardX to what is installed.

`space` reads what is searched, `study` asks Optuna, `trial` is what a worker does, `board` is how
trials and driver talk, and `sweep` is the driver.
"""

import agents.ray_cluster  # noqa: F401  # before Ray, which it makes quiet
