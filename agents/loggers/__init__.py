"""Where the figures of a run are written: SB3's writers, and what they lack.

`progress.csv` is always there; the others go by name: `tensorboard`, `wandb`, `stdout`, `json`,
`log`, or `package.module:KVWriterClass` for a writer of one's own.
"""

from agents.loggers.by_name import check_loggers, make_logger
from agents.loggers.csv_log import CSVLog
from agents.loggers.wandb_log import WandbLog

__all__ = ["CSVLog", "WandbLog", "check_loggers", "make_logger"]
