"""The launch lines, as people type them."""

import csv
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BIN = Path(sys.executable).parent
REWARD = """
import os

calls = 0

def score(text):
    global calls
    calls += 1
    if os.environ["RANK"] == os.environ.get("FAILS") and calls > 56:
        raise ZeroDivisionError("the service is away")
    return len(text) / 10
"""
SCRIPT = """
import sys

from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env
from agents.distributed.processes import processes_of

model, output = sys.argv[1:]
env_kwargs = {"tokenizer": model, "max_new_tokens": 8, "reward": "length"}
env = make_sb3_vec_env("TextGen-v0", n_envs=4, env_kwargs=env_kwargs)
settings = {"n_steps": 8, "seed": 0, "policy_kwargs": {"model": model}, "shard": True}
ppo = TokenPPO(TransformerPolicy, env, **settings, verbose=1, tensorboard_log="log")
ppo.learn(64)
ppo.learn(64, reset_num_timesteps=False)
ppo.save(output)
TokenPPO.load(output, env=env).learn(64)
told = ppo.num_timesteps, ppo.rollout_buffer.actions.tolist()
every = processes_of(ppo).gather("tells", told)
try:
    ppo.predict(ppo._last_obs)
except RuntimeError as error:
    assert "gathered" in str(error)
with ppo.learner.gathered():
    assert len(ppo.predict(ppo._last_obs)[0]) == 4
if processes_of(ppo).is_first:
    print("told", *(tokens for tokens, _ in every), len({str(texts) for _, texts in every}))
"""


@pytest.fixture(scope="module")
def place(byte_tokenizer: Any, make_llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a tiny model, a reward that may fail, and a script."""
    torch.manual_seed(0)
    directory = tmp_path_factory.mktemp("launch")
    make_llama().save_pretrained(directory / "model")
    byte_tokenizer.save_pretrained(directory / "model")
    (directory / "flaky.py").write_text(REWARD)
    (directory / "script.py").write_text(SCRIPT)
    return directory


def launch(place: Path, *line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Type a line, in an environment without what a launcher of these tests may have said."""
    told = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "MASTER_ADDR")}
    return subprocess.run(
        [BIN / line[0], *line[1:]],
        cwd=place,
        env={**told, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_run_that_fails_goes_on_by_another_launcher(place):
    settings = "--model model --n-envs 4 --n-steps 8 --max-new-tokens 8 --eval-prompts 4"
    settings += " --total-timesteps 192 --reward flaky:score --loggers json --output run"
    settings += " --checkpoint-every 0"
    torchrun = ("torchrun", "--nproc-per-node", "2", "--max-restarts", "1", "-m", "agents.cli")
    failed = launch(place, *torchrun, "train", *settings.split(), FAILS="1")
    assert failed.returncode != 0
    # The launcher began them once more, and they went on where they were.
    assert failed.stdout.count("Going on after 64 tokens") == 1
    error = "textgym train in process 1: reward 'score' raised ZeroDivisionError"
    assert failed.stderr.count(error) == 2
    saved = list((place / "run" / "checkpoints").iterdir())
    assert saved

    accelerate = ("accelerate", "launch", "--multi_gpu", "--num_processes", "2", BIN / "textgym")
    resumed = launch(place, *accelerate, "train", "--resume", "run")
    assert resumed.returncode == 0, resumed.stderr
    assert "in 2 processes" in resumed.stdout
    assert resumed.stdout.count("Going on after") == 1
    with (place / "run" / "progress.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["time/total_timesteps"]) for row in rows if row["objective/scores"]][-1] == 192
    assert (place / "run" / "report.html").is_file()


def test_a_script_trains_in_several_processes(place):
    torchrun = ("torchrun", "--nproc-per-node", "2", "script.py")
    done = launch(place, *torchrun, "model", "saved.zip")
    assert done.returncode == 0, done.stderr
    # Tokens of both are counted, and their texts are not the same.
    *_, last = done.stdout.splitlines()
    assert last.split() == ["told", "128", "128", "2"]
    # One table a rollout, and one log: the other process says and writes nothing.
    assert done.stdout.count("Using cpu device") == 1
    assert done.stdout.count("total_timesteps") == 3
    assert sorted(path.name for path in (place / "log").iterdir()) == ["TokenPPO_1", "TokenPPO_2"]


def test_other_commands_are_refused(place):
    torchrun = ("torchrun", "--nproc-per-node", "2", "-m", "agents.cli", "list")
    refused = launch(place, *torchrun)
    assert refused.returncode != 0
    assert "textgym list runs in one process" in refused.stderr
