"""What tests share: tokenizers and random models small enough to build in an instant."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import settings
from tokenizers import decoders, models, pre_tokenizers

from textgym.tokenizer import Tokenizer, byte_level_alphabet

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Tiny models gain nothing from threads, and lose much where another worker of pytest has the cores.
os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile("textgym", deadline=None)  # a machine may be busy with other things
settings.load_profile("textgym")

EOS = "<|endoftext|>"

# Fixtures that take long to start: one worker of pytest does, for the files that name them.
SHARED = ("local_ray", "driver")


def pytest_configure(config: pytest.Config) -> None:
    """A worker that dies ends the tests: pytest-xdist may wait for ever for one in its place."""
    if hasattr(config.option, "maxworkerrestart"):
        config.option.maxworkerrestart = "0"


@pytest.hookimpl(optionalhook=True)  # there is no such hook without pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of a file run in one worker, which makes their fixtures once."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFixture(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            text = (config.rootpath / file).read_text(encoding="utf-8")
            return next((name for name in SHARED if name in text), file)

    # In the order of the files: the last ones are short, so that no worker waits long.
    config.option.loadscopereorder = False
    return ByFixture(config, log)


def _byte_level(vocabulary: list[str]) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(
        models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([EOS])
    return backend


@pytest.fixture(scope="session")
def byte_tokenizer() -> Tokenizer:
    """Every byte is a token: ids 1 to 256; id 0 ends a text. No begin-of-text token."""
    alphabet = byte_level_alphabet()
    backend = _byte_level([EOS, *(alphabet[byte] for byte in range(256))])
    return Tokenizer(backend, name="bytes", eos_token=EOS)


@pytest.fixture(scope="session")
def byte_tokenizer_dir(byte_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with `byte_tokenizer`, for configurations that must be JSON-able."""
    directory = tmp_path_factory.mktemp("byte_tokenizer")
    byte_tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="session")
def tiny_tokenizer_dir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with a tokenizer of 11 tokens: the end of the text, and the letters a to j."""
    directory = tmp_path_factory.mktemp("tiny_tokenizer")
    Tokenizer(_byte_level([EOS, *"abcdefghij"]), name="letters", eos_token=EOS).save_pretrained(
        directory
    )
    return str(directory)


def _llama(**overrides: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": 257,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": None,
        "eos_token_id": 0,
        "tie_word_embeddings": True,
    }
    return LlamaForCausalLM(LlamaConfig(**{**settings, **overrides})).eval()


def _gpt2(**overrides: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    settings = {
        "vocab_size": 257,
        "n_positions": 256,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "bos_token_id": None,
        "eos_token_id": 0,
        # GPT-2's own 0.02 gives a fresh model next to no preference between tokens.
        "initializer_range": 0.2,
    }
    return GPT2LMHeadModel(GPT2Config(**{**settings, **overrides})).eval()


MODELS = {"gpt2": _gpt2, "llama": _llama}


@pytest.fixture(params=sorted(MODELS))
def make_model(request: pytest.FixtureRequest) -> Any:
    """Builds a tiny random causal LM of each family: absolute and rotary positions."""
    import torch

    torch.manual_seed(0)
    return MODELS[request.param]


@pytest.fixture(scope="session")
def make_llama() -> Any:
    """Builds a tiny random Llama."""
    return _llama


@pytest.fixture
def prompts_file(tmp_path: Path) -> str:
    """A task file with references and one more column."""
    rows = [
        '{"prompt": "ab", "reference": "cd", "level": 1}',
        '{"prompt": "abc", "reference": "dab", "level": 2}',
        '{"prompt": "h", "reference": "hhhh", "level": 3}',
        '{"prompt": "fgh", "reference": "a", "level": 4}',
    ]
    path = tmp_path / "prompts.jsonl"
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def _program(*names: str) -> str:
    """Where a program is that a browser needs; a test without it is skipped, but never in CI."""
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None and "CI" not in os.environ:
        pytest.skip(f"needs {names[0]}")
    assert found, f"{names[0]} is not installed, and CI runs every test"
    return found


@pytest.fixture(scope="session")
def local_ray() -> Iterator[str]:
    """A Ray with two workers, to which this process is connected; its address.

    One for all tests: it takes seconds to start. Workers find the packages of the benchmarks.
    """
    import ray

    from agents.ray_cluster import connected

    comparison = Path(__file__).parents[1] / "benchmarks" / "comparison"
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CUDA_VISIBLE_DEVICES", "")  # the same on a machine with GPUs
        stack = ExitStack()
        stack.enter_context(connected(num_cpus=2, runtime_env={"py_modules": [str(comparison)]}))
    with stack:
        yield ray.get_runtime_context().gcs_address


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium without a window, which can reach nothing but this machine."""
    browser, chromedriver = (
        _program("chromium", "chromium-browser", "google-chrome", "chrome"),
        _program("chromedriver"),
    )
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "no-proxy-server",
        "host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        "window-size=1280,900",
        f"user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    running = webdriver.Chrome(options=options, service=Service(executable_path=chromedriver))
    yield running
    running.quit()
