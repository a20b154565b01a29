"""The CSV log of a run."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
from stable_baselines3.common.logger import Image, Logger

from agents.loggers.csv_log import CSVLog, forget_rows


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_new_columns_may_come_later(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    log = CSVLog(path)
    logger = Logger(None, [log])
    logger.record("b", 1)
    logger.record("a", np.float32(0.5))
    logger.dump()
    logger.record("text, quoted", 'he said "no",\nand left')
    logger.record("a", 2.0)
    logger.record("picture", Image(np.zeros((2, 2, 3), np.uint8), "HWC"))
    logger.record("elsewhere", 3, exclude="csv")
    logger.dump()
    logger.record("0", np.float64(0.25))
    logger.dump()
    logger.close()
    assert path.read_text().splitlines()[0] == 'a,b,"text, quoted",0'
    assert [list(row.values()) for row in rows_of(path)] == [
        ["0.5", "1", "", ""],
        ["2.0", "", 'he said "no",\nand left', ""],
        ["", "", "", "0.25"],
    ]


def test_a_log_goes_on_without_what_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    path.write_bytes(b'a,name\n1,x\n2,"unfini' + "é".encode()[:1])
    log = CSVLog(path)
    assert path.read_text() == "a,name\n1,x\n"
    log.write({"name": "y", "a": 2}, {})
    log.close()
    assert path.read_text() == "a,name\n1,x\n2,y\n"


def test_a_log_without_rows_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    CSVLog(path).close()
    assert path.read_text() == ""
    path.write_text("half a hea")
    log = CSVLog(path)
    log.write({"a": 1}, {})
    log.close()
    assert path.read_text() == "a\n1\n"


def test_rows_after_a_checkpoint_are_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "progress.csv"
    whole = 'a,time/total_timesteps\n"x,\ny",64\n2,128\n3,192\n4,2'
    path.write_text(whole)
    forget_rows(path, 128)
    assert path.read_text() == 'a,time/total_timesteps\n"x,\ny",64\n2,128\n'


def test_the_order_of_columns_is_the_same_in_every_process(tmp_path: Path) -> None:
    script = (
        "import sys; from agents.loggers import CSVLog\n"
        "CSVLog(sys.argv[1]).write({f'key/{k}': k for k in range(30)}, {})"
    )
    headers = set()
    for seed in ("1", "2"):
        path = tmp_path / seed
        environment = {"PYTHONHASHSEED": seed, "PATH": ""}
        root = Path(__file__).parents[3]
        subprocess.run([sys.executable, "-c", script, path], check=True, env=environment, cwd=root)
        headers.add(path.read_text())
    assert len(headers) == 1
