"""Training a reward model from preferences, and the reward that it becomes."""

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
import tyro
from rich.console import Console
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertModel,
    LlamaForSequenceClassification,
)

from agents.preferences import read_preferences
from agents.reward_training import (
    RewardTrainingConfig,
    preference_loss,
    train_reward,
)
from agents.rewards.reward_model import RECORD, RewardModel
from agents.rewards.sequence_scorer import padded
from textgym.checks import check_reward
from textgym.completion import Sample
from textgym.rewards import make
from textgym.tokenizer import BUILTIN_DIRECTORY

QUIET = Console(quiet=True)


def sample(prompt, text):
    return Sample(prompt, text, None, [], {})


def preferences(count, seed=0):
    """Answers of the same letters, of which people like the one with an exclamation mark."""
    generator = np.random.default_rng(seed)
    for number in range(count):
        texts = ["".join(generator.choice(list("abcdefgh "), 8)) for _ in range(2)]
        place = generator.integers(9)
        marks = [f"{text[:place]}{mark}{text[place:]}" for text, mark in zip(texts, "!?")]  # noqa: B905
        yield {"prompt": f"{number}:", "chosen": marks[0], "rejected": marks[1]}


def write(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture
def base(make_llama, byte_tokenizer, tmp_path):
    """A tiny language model to begin with."""
    torch.manual_seed(0)
    make_llama().save_pretrained(tmp_path / "base")
    byte_tokenizer.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


@pytest.fixture
def config(base, tmp_path):
    """Makes a config for a file of preferences."""

    def config(rows, **settings):
        data = rows if not isinstance(rows, list) else write(tmp_path / "preferences.jsonl", rows)
        return RewardTrainingConfig(data, tmp_path / "out", model=base, **settings)

    return config


def test_learns_what_people_prefer(config, tmp_path):
    settings = config(list(preferences(600)), epochs=4, learning_rate=3e-3)
    record = train_reward(settings, QUIET)
    assert record["accuracy"] > 0.9 > 0.75 > record["accuracy_before"]
    assert (record["training_pairs"], record["held_out_pairs"]) == (540, 60)
    assert record == json.loads((tmp_path / "out" / RECORD).read_text(encoding="utf-8"))

    reward = RewardModel(str(tmp_path / "out"))
    better, worse = (sample("601:", text) for text in ("abc! def", "abc? def"))
    scores = reward.score([better, worse])
    assert scores[0] > scores[1] + 0.5
    # Mean and deviation are those of the held-out texts, which thereby have 0 and 1.
    _, held_out = read_preferences(settings.data, 0.1, 0)
    answers = [(p.prompt, answer) for p in held_out for answer in (p.chosen, p.rejected)]
    normalised = reward.score([sample(*answer) for answer in answers])
    assert (np.mean(normalised), np.std(normalised)) == pytest.approx((0, 1), abs=1e-3)

    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("601:abc! def", return_tensors="pt")
    with torch.no_grad():
        logit = plain(**ids).logits.item()
    raw = RewardModel(str(tmp_path / "out"), normalize=False)
    assert raw.score([better]) == pytest.approx([logit], abs=1e-4)
    assert scores[0] == pytest.approx((logit - record["mean"]) / record["std"], abs=1e-4)


def test_reward_model_in_an_environment(config, tmp_path, byte_tokenizer_dir):
    train_reward(config(list(preferences(20))), QUIET)
    reward = {"name": "reward_model", "model": str(tmp_path / "out")}
    check_reward(reward)
    env = gym.make("TextGen-v0", reward=reward, tokenizer=byte_tokenizer_dir, max_new_tokens=3)
    env.reset(options={"prompt": "1:"})
    total = sum(env.step(1 + byte)[1] for byte in b"ab!")
    expected = RewardModel(str(tmp_path / "out")).score([sample("1:", "ab!")])
    assert total == pytest.approx(expected[0], abs=1e-5)


def test_builtin_model_can_be_trained_and_goes_by_the_tokens_of_its_tokenizer(tmp_path):
    data = write(tmp_path / "p.jsonl", list(preferences(8)))
    train_reward(RewardTrainingConfig(data, tmp_path / "out"), QUIET)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    builtin = AutoTokenizer.from_pretrained(BUILTIN_DIRECTORY)
    assert tokenizer("My lord")["input_ids"] == builtin("My lord")["input_ids"]
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").config
    assert config.pad_token_id == tokenizer.pad_token_id == 1
    assert make({"name": "reward_model", "model": str(tmp_path / "out")}).weights == {
        "reward_model": 1.0
    }


def test_the_same_seed_gives_the_same_model(config, tmp_path):
    settings = config(list(preferences(30)))
    first = train_reward(settings, QUIET)
    second = train_reward(replace(settings, output=tmp_path / "second"), QUIET)
    third = train_reward(replace(settings, output=tmp_path / "third", seed=1), QUIET)
    assert (first["mean"], first["std"]) == (second["mean"], second["std"])
    assert first["mean"] != third["mean"]


def test_portions_give_the_gradient_of_the_whole_batch(config, monkeypatch, tmp_path):
    settings = config(list(preferences(30)), batch_size=9)
    whole = train_reward(settings, QUIET)
    monkeypatch.setattr("agents.reward_training.MAX_TOKENS", 50)
    read = []

    def reading(*arguments):
        inputs = padded(*arguments)
        read.append(inputs["input_ids"].numel())
        return inputs

    monkeypatch.setattr("agents.reward_training.padded", reading)
    parts = train_reward(replace(settings, output=tmp_path / "parts"), QUIET)
    assert parts["mean"] == pytest.approx(whole["mean"], abs=1e-4)
    assert parts["accuracy_before"] == whole["accuracy_before"]
    assert max(read) <= 50  # of training and of held-out pairs


def test_trains_in_bfloat16(config):
    record = train_reward(config(list(preferences(40)), dtype="bfloat16"), QUIET)
    assert math.isfinite(record["mean"])
    assert record["std"] > 0


def test_encoder_can_be_trained(byte_tokenizer, tmp_path):
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}
    encoder = BertModel(BertConfig(vocab_size=257, num_attention_heads=4, pad_token_id=0, **size))
    encoder.save_pretrained(tmp_path / "bert")
    byte_tokenizer.save_pretrained(tmp_path / "bert")
    data = write(tmp_path / "p.jsonl", list(preferences(8)))
    settings = RewardTrainingConfig(data, tmp_path / "out", model=str(tmp_path / "bert"))
    train_reward(settings, QUIET)
    check_reward({"name": "reward_model", "model": str(tmp_path / "out")})


def test_model_with_a_layer_missing_is_refused(config, base, tmp_path):
    path = tmp_path / "base" / "config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, "num_hidden_layers": 3, "layer_types": None}))
    with pytest.raises(ValueError, match=r"lacks weights of the model itself.*layers\.2\."):
        train_reward(config(list(preferences(4))), QUIET)


def test_command_line(tmp_path):
    words = ["data.csv", "--output", "there", "--epochs", "3", "--learning-rate", "1e-5"]
    parsed = tyro.cli(RewardTrainingConfig, args=words)
    expected = {"data": Path("data.csv"), "output": Path("there"), "epochs": 3}
    assert parsed == RewardTrainingConfig(**expected, learning_rate=1e-5)


def test_preference_loss():
    rewards = torch.tensor([[2.0, 0.0], [0.0, 0.0], [-1.0, 2.0]])
    expected = [math.log(1 + math.exp(-2)), math.log(2), math.log(1 + math.exp(3))]
    assert preference_loss(rewards).tolist() == pytest.approx(expected)


def test_no_prompt_is_trained_and_tested_on(tmp_path):
    rows = [{**row, "prompt": f"prompt {i % 7}"} for i, row in enumerate(preferences(70))]
    training, held_out = read_preferences(write(tmp_path / "p.jsonl", rows), 0.3, 0)
    assert len(training) + len(held_out) == 70
    assert not {p.prompt for p in training} & {p.prompt for p in held_out}
    assert len(held_out) == 20
    again = read_preferences(write(tmp_path / "p.jsonl", rows[::-1]), 0.3, 0)
    assert {p.prompt for p in again[1]} == {p.prompt for p in held_out}


def test_csv_is_read_as_jsonl_is(tmp_path):
    rows = list(preferences(9))
    csv = tmp_path / "p.csv"
    lines = [f"{r['prompt']},{r['chosen']},{r['rejected']}" for r in rows]
    csv.write_text("\n".join(["prompt,chosen,rejected", *lines]), encoding="utf-8")
    assert read_preferences(csv, 0.2, 0) == read_preferences(
        write(tmp_path / "p.jsonl", rows), 0.2, 0
    )


GOOD = {"prompt": "a", "chosen": "b", "rejected": "c"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "line 3: no field 'rejected'; there are 'prompt', 'chos"),
        ({"chosen": "b", "rejected": "c"}, "line 3: no field 'prompt'"),
        ({**GOOD, "chosen": " "}, "line 3: chosen is a text that is not empty, got ' '"),
        ({**GOOD, "prompt": ""}, "line 3: prompt is a text that is not empty, got ''"),
        (
            {**GOOD, "rejected": ["c"]},
            "line 3: rejected is a text that is not empty, got \\['c'\\]",
        ),
        ({**GOOD, "rejected": None}, "line 3: rejected is a text that is not empty, got None"),
        ({**GOOD, "rejected": "b"}, "line 3: chosen and rejected are the same, 'b'"),
        (["a"], "line 3: expected a JSON object"),
    ],
)
def test_bad_rows_are_named_before_any_work(config, row, message, tmp_path):
    rows = [GOOD, {**GOOD, "prompt": "z"}, row]
    with pytest.raises(ValueError, match=rf"preferences\.jsonl, {message}"):
        train_reward(config(rows, device="cpu"), QUIET)
    assert not (tmp_path / "out").exists()


def test_files_that_are_no_preferences(config, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        train_reward(config(tmp_path / "none.jsonl"), QUIET)
    (tmp_path / "lines.txt").write_text("a\n")
    with pytest.raises(ValueError, match=r"file that ends in '\.txt'; .*'\.csv', '\.jsonl'"):
        train_reward(config(tmp_path / "lines.txt"), QUIET)
    with pytest.raises(ValueError, match="same prompt in every row"):
        train_reward(config([GOOD, {**GOOD, "chosen": "d"}]), QUIET)
    csv = tmp_path / "p.csv"
    csv.write_text("prompt,chosen\na,b\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"p\.csv, line 2: no field 'rejected'"):
        train_reward(config(csv), QUIET)


def test_output_that_holds_something_is_left_alone(config, base, tmp_path):
    rows = list(preferences(4))
    out = tmp_path / "out"
    out.write_text("a file", encoding="utf-8")
    with pytest.raises(FileExistsError):
        train_reward(config(rows), QUIET)
    out.unlink()
    train_reward(config(rows), QUIET)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(FileExistsError, match=r"already holds a model\. Choose another directory"):
        train_reward(config(rows, seed=3), QUIET)
    assert (out / "model.safetensors").read_bytes() == before


def test_loss_that_is_no_number_stops(config, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "agents.reward_training.preference_loss", lambda rewards: rewards.sum(1) * math.nan
    )
    with pytest.raises(FloatingPointError, match=r"loss became nan at step 0.*--learning-rate"):
        train_reward(config(list(preferences(10))), QUIET)
    assert list((tmp_path / "out").iterdir()) == []


def test_model_that_went_astray_is_not_saved(config, tmp_path):
    with pytest.raises(FloatingPointError):
        train_reward(config(list(preferences(40)), batch_size=36, learning_rate=1e30), QUIET)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be above 0, got 0"),
        ({"learning_rate": -1.0}, "learning_rate must be above 0, got -1.0"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or above"),
        ({"validation_fraction": 1.0}, "validation_fraction must be above 0 and below 1, got 1.0"),
    ],
)
def test_bad_settings(config, settings, message):
    with pytest.raises(ValueError, match=message):
        config([GOOD], **settings)


def test_progress_is_shown(config):
    output = io.StringIO()
    train_reward(config(list(preferences(20)), epochs=2), Console(file=output, width=100))
    shown = output.getvalue()
    assert "18 training and 2 held-out pairs" in " ".join(shown.split())
    assert "epoch 2/2" in shown


def test_directory_as_trl_leaves_it(base, byte_tokenizer, tmp_path):
    """TRL's RewardTrainer makes this class with one label, and pads with the end of text."""
    torch.manual_seed(1)
    model = LlamaForSequenceClassification.from_pretrained(base, num_labels=1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    with torch.no_grad():
        model.score.weight.normal_()
    model.save_pretrained(tmp_path / "trl")
    tokenizer.save_pretrained(tmp_path / "trl")
    reward = RewardModel(str(tmp_path / "trl"))
    given = [sample("a prompt", text) for text in (" and", " a longer answer", "")]
    expected = []
    for prompt, text, *_ in given:
        ids = torch.tensor([tokenizer(prompt + text)["input_ids"]])
        with torch.no_grad():
            expected.append(model.eval()(ids).logits.item())
    assert reward.score(given) == pytest.approx(expected, abs=1e-5)
    check_reward({"name": "reward_model", "model": str(tmp_path / "trl")})
    with pytest.raises(ValueError, match=r"^reward_model: .*reward_training\.json to normalise by"):
        RewardModel(str(tmp_path / "trl"), normalize=True)


def test_end_of_text_is_added_on_request(make_llama, tmp_path):
    """With padding of its own, a decoder reads the end of the text as a token."""
    builtin = AutoTokenizer.from_pretrained(BUILTIN_DIRECTORY)
    base = AutoModelForCausalLM.from_pretrained(BUILTIN_DIRECTORY, dtype=torch.float32)
    base.save_pretrained(tmp_path / "lm")
    torch.manual_seed(1)
    model = LlamaForSequenceClassification.from_pretrained(tmp_path / "lm", num_labels=1)
    model.save_pretrained(tmp_path / "rm")
    builtin.save_pretrained(tmp_path / "rm")
    ids = builtin("My lord")["input_ids"]
    for add_eos, read in ((False, ids), (True, [*ids, builtin.eos_token_id])):
        with torch.no_grad():
            logit = model.eval()(torch.tensor([read])).logits.item()
        reward = RewardModel(str(tmp_path / "rm"), add_eos=add_eos)
        assert reward.score([sample("My", " lord")]) == pytest.approx([logit], abs=1e-4)


def test_prompt_can_be_left_out(config, tmp_path):
    train_reward(config(list(preferences(10))), QUIET)
    reward = RewardModel(str(tmp_path / "out"), with_prompt=False)
    one, other, whole = reward.score([sample("a", "b"), sample("c", "b"), sample("", "ab")])
    assert one == other != whole


def test_classifier_is_no_reward_model(base, byte_tokenizer, tmp_path):
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2)
    model.save_pretrained(tmp_path / "two")
    byte_tokenizer.save_pretrained(tmp_path / "two")
    with pytest.raises(ValueError, match=r"^reward_model: .*has 2 labels.*'classifier'"):
        RewardModel(str(tmp_path / "two"))


def test_a_record_without_spread_cannot_normalise(config, tmp_path):
    train_reward(config(list(preferences(10))), QUIET)
    path = tmp_path / "out" / RECORD
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**record, "std": 0.0}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"^reward_model: .*standard deviation 0\.0"):
        RewardModel(str(tmp_path / "out"))
    RewardModel(str(tmp_path / "out"), normalize=False)
