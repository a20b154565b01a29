"""What is kept of every token is what the models before and after training say of it."""

import copy
import json
import math
from dataclasses import asdict
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import TransformerPolicy, TransformerQPolicy, make_sb3_vec_env
from agents.cli import main
from agents.evaluation import write
from agents.reporting.run import load_run
from agents.reporting.texts import read_by_both, write_texts
from agents.reporting.token_texts import text_sets
from agents.run_directory import RunDirectory
from agents.weights import save_weights, trained_weights

PROMPTS = [{"prompt_index": index} for index in range(5)]
POLICIES = {"actor": TransformerPolicy, "q": TransformerQPolicy}


@pytest.fixture(params=sorted(POLICIES))
def policy(request, make_llama, text_kwargs):
    env = gym.make("TextGen-v0", **text_kwargs)
    kind = POLICIES[request.param]
    torch.manual_seed(0)
    made = kind(
        env.observation_space, env.action_space, lambda _: 1e-3, model=make_llama(vocab_size=11)
    )
    return moved(made)


def moved(policy):
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
    return policy


@pytest.fixture
def env(text_kwargs):
    env = make_sb3_vec_env("TextGen-v0", 3, env_kwargs=text_kwargs)
    yield env
    env.close()


def said(policy, written):
    """Log-probabilities and values of a text, by transformers alone."""
    ((_, context),) = written.contexts
    tokens = written.episode.token_ids
    ids = torch.tensor([[*context.tolist(), *tokens]])
    with torch.no_grad():
        out = policy.backbone.model(input_ids=ids, output_hidden_states=True)
        before = slice(len(context) - 1, -1)
        log_probs = out.logits.log_softmax(-1)[0, before]
        values = policy.value_head(out.hidden_states[-1])[0, before, 0]
    return log_probs.gather(1, torch.tensor(tokens)[:, None])[:, 0], values


def test_both_models_say_of_each_token_what_transformers_computes(policy, env, tmp_path):
    untrained = copy.deepcopy(policy)
    save_weights(policy, tmp_path / "start.safetensors")
    before = write(policy, env, PROMPTS)
    trained = copy.deepcopy(moved(policy))
    after = write(policy, env, PROMPTS, seed=1)
    texts = [*before, *after]
    readings = read_by_both(policy, tmp_path / "start.safetensors", policy, 1.0, texts)
    for model, found in ((untrained, readings.before), (trained, readings.after)):
        for each, reading in zip(texts, found, strict=True):
            log_probs, values = said(model, each)
            np.testing.assert_allclose(reading.log_probs, log_probs, rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(reading.values, values, rtol=1e-4, atol=1e-5)
    for name, tensor in trained_weights(untrained).items():
        assert torch.equal(tensor, trained_weights(policy)[name])


def test_the_components_of_a_token_add_up_to_its_reward(policy, env):
    for each in write(policy, env, PROMPTS):
        assert each.components.keys() == {"edit_distance", "length"}
        paid = np.sum(list(each.components.values()), axis=0)
        np.testing.assert_allclose(paid, each.episode.rewards, atol=1e-6)
        for name, amounts in each.components.items():
            weight = {"edit_distance": 1.0, "length": 0.5}[name]
            assert sum(amounts) == pytest.approx(weight * each.episode.scores[name], abs=1e-6)


def test_a_record_keeps_all_that_was_read(policy, env, tmp_path, text_kwargs):
    save_weights(policy, tmp_path / "start.safetensors")
    written = write(policy, env, PROMPTS)
    readings = read_by_both(policy, tmp_path / "start.safetensors", policy, 1.0, written)
    tokenizer = env.get_attr("process")[0].tokenizer
    path = tmp_path / "texts.json"
    write_texts(path, "some", 7, written, [], readings, tokenizer, critic=False)
    kept = json.loads(path.read_text())
    assert (kept["what"], kept["kept"], kept["after"]) == ("some", 7, [])
    for record, each, reading in zip(kept["before"], written, readings.after, strict=True):
        assert "values" not in record
        assert record["log_probs"]["after"] == pytest.approx(reading.log_probs.tolist(), rel=1e-5)
        assert "".join(record["pieces"]) == each.episode.text
        assert record["rewards"] == each.episode.rewards


def test_texts_before_training_are_read_back_as_they_were_kept(policy, env, tmp_path):
    run = RunDirectory(tmp_path)
    written = write(policy, env, PROMPTS)
    run.save_before(written)
    for read, each in zip(run.load_before(), written, strict=True):
        assert json.dumps(asdict(read.episode)) == json.dumps(asdict(each.episode))
        assert read.components == each.components
        for (begin, context), (other, kept) in zip(read.contexts, each.contexts, strict=True):
            assert begin == other
            np.testing.assert_array_equal(context, kept)


@pytest.mark.parametrize(
    ("arguments", "has_values"),
    [
        # Turns that end early, so that answers are read between them.
        (["--task", '{"name": "game", "num_games": 40}', "--stop", *"aeiou tn"], True),
        (["--templates", "Say: {prompt}", "Now, {prompt}", "--prompts", "bandit"], True),
        (["--algo", "dqn", "--learning-starts", "32"], True),
        (["--algo", "reinforce", "--no-baseline", "--n-episodes", "8"], False),
    ],
    ids=["turns", "templates", "dqn", "no critic"],
)
def test_runs_of_every_kind(
    tmp_path, make_llama, byte_tokenizer, prompts_file, arguments, has_values
):
    torch.manual_seed(0)
    make_llama(max_position_embeddings=512).save_pretrained(tmp_path / "model")
    byte_tokenizer.save_pretrained(tmp_path / "model")
    run = tmp_path / "run"
    common = [
        "--model", str(tmp_path / "model"), "--output", str(run), "--total-timesteps", "128",
        "--n-envs", "8", "--max-new-tokens", "8", "--eval-prompts", "4", "--eval-every", "0",
    ]  # fmt: skip
    task = [] if "--task" in arguments else ["--reward", "length"]
    steps = [] if "--n-episodes" in arguments else ["--n-steps", "8"]
    assert main(["train", *common, *task, *steps, *arguments]) == 0
    [found] = text_sets(load_run(run), 100)
    texts = [text for prompt in found["prompts"] for text in prompt["texts"]]
    assert len(texts) == 8
    for text in texts:
        count = len(text["tokens"])
        assert 1 <= count <= 8
        assert ("values" in text) == has_values
        columns = [text["rewards"], *text["components"].values(), *text["probabilities"]]
        for column in [*columns, *text.get("values", ())]:
            assert len(column) == count
        assert all(0 < p <= 1 for of_model in text["probabilities"] for p in of_model)
        paid = sum(map(math.fsum, text["components"].values()))
        assert paid == pytest.approx(math.fsum(text["rewards"]), abs=1e-4)
    if "game" in str(arguments):
        assert any(text["replies"] for text in texts)
    if "bandit" in arguments:
        assert all(text["context"].startswith(("Say: ", "Now, ")) for text in texts)
    assert Path(run, "report.html").stat().st_size > 4_000_000
