"""Tokenizers and models of all shapes, and the smallest environments, train or are refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from stable_baselines3 import A2C, PPO
from tokenizers import decoders, models, pre_tokenizers

from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env
from agents.algorithms.grpo import GRPO
from agents.models import load_model
from textgym.tokenizer import Tokenizer, byte_level_alphabet

LETTERS = [byte_level_alphabet()[byte] for byte in range(97, 107)]  # a to j


def letters(*special: str, alphabet: list[str] = LETTERS, **roles: str) -> Tokenizer:
    """A tokenizer of special tokens and letters."""
    vocabulary = {token: i for i, token in enumerate([*special, *alphabet])}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(special))
    return Tokenizer(backend, name="letters", **roles)


TOKENIZERS = {
    "EOS alone": letters("<e>", eos_token="<e>"),
    "EOS = pad": letters("<e>", eos_token="<e>", pad_token="<e>"),
    "EOS = pad = BOS": letters("<e>", eos_token="<e>", pad_token="<e>", bos_token="<e>"),
    "a pad token": letters("<e>", "<p>", eos_token="<e>", pad_token="<p>"),
    "no EOS": letters("<e>"),
    "nothing special": letters(),
    "a BOS token that it does not add": letters("<e>", "<b>", eos_token="<e>", bos_token="<b>"),
}


@pytest.fixture
def task(prompts_file: str) -> dict[str, Any]:
    return {"name": "file", "path": prompts_file}


def train(
    tokenizer: Tokenizer | str,
    model: Any,
    task: dict[str, Any],
    algorithm: Any = TokenPPO,
    n_envs: int = 2,
    **given: Any,
) -> Any:
    """Train for two updates; returns the algorithm, of which the weights are still numbers."""
    kwargs = {"task": task, "tokenizer": tokenizer, "reward": "length", "max_new_tokens": 3}
    steps = {"n_steps": 4} | ({"batch_size": 4} if algorithm in (TokenPPO, PPO) else {})
    settings = {} if algorithm is GRPO else steps
    settings |= {"group_size": 2} if algorithm is GRPO else {}
    made = algorithm(
        TransformerPolicy,
        make_sb3_vec_env("TextGen-v0", n_envs, env_kwargs={**kwargs, **given}, seed=0),
        policy_kwargs={"model": model},
        device="cpu",
        seed=0,
        **settings,
    )
    before = [parameter.detach().clone() for parameter in made.policy.parameters()]
    made.learn(8 * n_envs)
    after = list(made.policy.parameters())
    assert all(torch.isfinite(parameter).all() for parameter in after)
    if algorithm is not GRPO:  # which learns nothing where a group's texts are worth the same
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    return made


@pytest.mark.parametrize("tie", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_tokenizers_with_and_without_special_tokens(
    kind: str, tie: bool, make_llama: Callable[..., Any], task: dict[str, Any]
) -> None:
    tokenizer = TOKENIZERS[kind]
    train(tokenizer, make_llama(vocab_size=tokenizer.vocab_size, tie_word_embeddings=tie), task)


@pytest.mark.parametrize("algorithm", [TokenPPO, PPO, A2C, GRPO])
def test_a_head_wider_than_the_tokenizer_writes_tokens_of_it_only(
    algorithm: Any, make_model: Callable[..., Any], task: dict[str, Any]
) -> None:
    tokenizer = TOKENIZERS["EOS = pad"]
    made = train(tokenizer, make_model(vocab_size=tokenizer.vocab_size + 117), task, algorithm)
    observation = made.get_env().reset()
    for _ in range(20):
        actions, _ = made.predict(observation)
        assert (actions < tokenizer.vocab_size).all()


@pytest.mark.parametrize("missing", [1, 5])
def test_a_head_narrower_than_the_tokenizer_is_refused(
    missing: int, make_llama: Callable[..., Any], task: dict[str, Any]
) -> None:
    tokenizer = TOKENIZERS["EOS = pad"]
    with pytest.raises(ValueError, match=r"tokenizer has 11 tokens and .*resize_token_embeddings"):
        train(tokenizer, make_llama(vocab_size=11 - missing), task)


@pytest.mark.parametrize("algorithm", [TokenPPO, PPO, A2C])
def test_one_environment(
    algorithm: Any, make_llama: Callable[..., Any], task: dict[str, Any]
) -> None:
    train(TOKENIZERS["EOS = pad"], make_llama(vocab_size=11), task, algorithm, n_envs=1)


@pytest.mark.parametrize(
    "given",
    [
        {"max_new_tokens": 1},
        {"max_new_tokens": 1, "context_length": 2, "prompt_truncation": "left"},
        {"vocabulary": ["a"]},
        {"stop": ["a"]},
        {"templates": ["<e>{prompt}<e>"]},
        {"templates": ["a" * 40 + "{prompt}"], "context_length": 9, "prompt_truncation": "left"},
    ],
    ids=str,
)
def test_the_smallest_and_the_oddest(
    given: dict[str, Any], make_llama: Callable[..., Any], task: dict[str, Any]
) -> None:
    train(TOKENIZERS["EOS = pad"], make_llama(vocab_size=11), task, **given)


def test_nothing_but_the_end_may_be_written(
    make_llama: Callable[..., Any], task: dict[str, Any]
) -> None:
    tokenizer = TOKENIZERS["EOS = pad"]
    kwargs = {"task": task, "tokenizer": tokenizer, "reward": "length", "vocabulary": [0]}
    env = make_sb3_vec_env("TextGen-v0", 2, env_kwargs=kwargs)
    policy_kwargs = {"model": make_llama(vocab_size=11)}
    ppo = TokenPPO(TransformerPolicy, env, n_steps=4, policy_kwargs=policy_kwargs, device="cpu")
    ppo.learn(16)
    assert (ppo.predict(env.reset())[0] == 0).all()


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_context_without_room_for_a_prompt_is_refused(length: int, task: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"context_length={length} leaves no room for a prompt"):
        train(TOKENIZERS["EOS = pad"], None, task, context_length=length)


def test_a_model_of_few_positions_is_refused(
    make_model: Callable[..., Any], task: dict[str, Any]
) -> None:
    name = "n_positions" if make_model.__name__ == "_gpt2" else "max_position_embeddings"
    model = make_model(vocab_size=11, **{name: 5})
    with pytest.raises(ValueError, match=r"context_length is 6 and .* has 5 positions. Give the"):
        train(TOKENIZERS["EOS = pad"], model, task)


def test_a_vocabulary_of_one_token(make_llama: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("a\naa\naaa\n")
    only_a = letters(alphabet=["a"])
    task = {"name": "file", "path": str(path)}
    kwargs = {"task": task, "tokenizer": only_a, "reward": "length", "max_new_tokens": 2}
    env = make_sb3_vec_env("TextGen-v0", 1, env_kwargs=kwargs)
    policy_kwargs = {"model": make_llama(vocab_size=1)}
    ppo = TokenPPO(TransformerPolicy, env, n_steps=4, policy_kwargs=policy_kwargs, device="cpu")
    ppo.learn(8)
    assert (ppo.predict(env.reset())[0] == 0).all()


BROKEN: dict[str, tuple[str, bytes, str]] = {
    "no JSON": ("config.json", b"[", "not a valid JSON file"),
    "an empty object": ("config.json", b"{}", "model_type"),
    "an unknown type": ("config.json", b'{"model_type": "abacus"}', "abacus"),
    "a wrong type": (
        "config.json", b'{"model_type": "llama", "vocab_size": "x"}', "config.json of .* cannot"),
    "empty weights": ("model.safetensors", b"", "weights in .* cannot be read.*safetensors"),
    "torn weights": ("model.safetensors", b"\x10" * 64, "weights in .* cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_models_are_refused(
    kind: str, make_llama: Callable[..., Any], tmp_path: Path
) -> None:
    name, data, message = BROKEN[kind]
    make_llama(vocab_size=11).save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(data)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_model(tmp_path)


class _Code:
    def __reduce__(self) -> Any:
        return Path.touch, (Path("executed"),)


def test_code_among_weights_is_not_executed(
    make_llama: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_llama(vocab_size=11).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(_Code(), tmp_path / "pytorch_model.bin", pickle_module=pickle)
    with pytest.raises(ValueError, match="cannot be read"):
        load_model(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_a_model_that_is_nowhere_is_found_missing_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FileNotFoundError, match=r"no model 'nobody/nothing'.*Check the spelling"):
        load_model("nobody/nothing")
