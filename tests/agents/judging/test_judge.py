"""Models are judged side by side, from the settings to the files."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from agents.config import RunConfig
from agents.judging.config import EvalConfig
from agents.judging.judge import evaluate_models
from agents.run_file import save_config
from textgym.tasks import Example, Task
from textgym.tokenizer import Tokenizer

PROMPTS = ["abcde"[:length] for length in range(1, 6)]
TASK = Task("letters", {"test": tuple(Example(prompt, prompt[::-1]) for prompt in PROMPTS)})
REWARD = {"edit_distance": 1.0, "length": {"target": 4, "weight": 0.5}}


def save(model, directory, tokenizer_dir):
    model.save_pretrained(directory)
    Tokenizer.from_pretrained(tokenizer_dir).save_pretrained(directory)
    return str(directory)


@pytest.fixture
def models(tmp_path, make_llama, tiny_tokenizer_dir):
    """A model of letters, and a run that began with it."""
    torch.manual_seed(0)
    model = make_llama(vocab_size=11)
    base = save(model, tmp_path / "base", tiny_tokenizer_dir)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape)
    trained = tmp_path / "run"
    save(model, trained / "model", tiny_tokenizer_dir)
    settings = RunConfig(model=base, reward=REWARD, max_new_tokens=6)
    save_config(settings, trained / "config.yaml")
    return base, str(trained)


@pytest.fixture
def config(models):
    return EvalConfig(model=models, task=TASK)


@pytest.fixture
def screen():
    return Console(record=True, width=100)


def judged(config, console=None):
    judgements = evaluate_models(config, console or Console(quiet=True))
    return {(each.model, each.decoding): each for each in judgements}


def test_two_models_in_both_ways(config, models, screen):
    base, run = models
    judgements = judged(config, screen)
    assert list(judgements) == [(m, d) for m in models for d in ("sampled", "greedy")]
    for (model, decoding), judgement in judgements.items():
        assert [episode.prompt for episode in judgement.episodes] == PROMPTS
        assert max(len(episode.token_ids) for episode in judgement.episodes) <= 6  # as the run has
        scores = [episode.score for episode in judgement.episodes]
        assert judgement.figures["score"].value == pytest.approx(np.mean(scores))
        assert {"reward/edit_distance", "reward/length", "perplexity"} <= set(judgement.figures)
        assert ("kl" in judgement.figures) == (decoding == "sampled")
        assert ("gain" in judgement.figures) == (model == run)
        assert judgement.reference == base
    gains = [judgements[run, "greedy"].figures["gain"].value]
    scores = [judgements[model, "greedy"].figures["score"].value for model in models]
    assert gains == pytest.approx([scores[1] - scores[0]])
    shown = screen.export_text()
    for part in ("sampled", "greedy", "edit_distance"):
        assert part in shown
    what = "task letters, reward edit_distance + 0.5 length"
    assert f"5 prompts of split 'test', {what}" in shown
    assert "Prompts are plain text." in shown
    assert "Drawn with" not in shown
    assert f"{scores[1]:+.3f}" in shown


def test_a_model_is_no_distance_from_itself(config, models):
    base, run = models
    figures = judged(config)[base, "sampled"].figures
    kl = figures["kl"]
    assert (kl.value, kl.low, kl.high) == (0, 0, 0)
    assert figures["perplexity"].value > 1
    assert judged(config)[run, "sampled"].figures["kl"].value != 0
    explicit = judged(replace(config, reference=run))
    assert explicit[run, "sampled"].figures["kl"].value == 0
    assert explicit[base, "sampled"].reference == run


def test_perplexity_and_kl_are_what_transformers_computes(config, models):
    from transformers import AutoModelForCausalLM

    base, run = models
    judgement = judged(replace(config, samples=2))[run, "sampled"]
    before = AutoModelForCausalLM.from_pretrained(base)
    after = AutoModelForCausalLM.from_pretrained(f"{run}/model")
    tokenizer = Tokenizer.from_pretrained(base)
    surprise, gaps = [], []
    for episode in judgement.episodes:
        context = tokenizer.encode(episode.prompt)
        ids = torch.tensor([[*context, *episode.token_ids]])
        labels = ids.clone()
        labels[:, : len(context)] = -100
        count = len(episode.token_ids)
        with torch.no_grad():
            nll = [float(m(input_ids=ids, labels=labels).loss) * count for m in (before, after)]
        surprise.append(nll[0])
        gaps.append(nll[0] - nll[1])
    tokens = sum(len(episode.token_ids) for episode in judgement.episodes)
    figures = judgement.figures
    expected = math.exp(sum(surprise) / tokens)
    assert figures["perplexity"].value == pytest.approx(expected, rel=1e-4)
    assert figures["perplexity"].low < expected < figures["perplexity"].high
    assert figures["kl"].value == pytest.approx(np.mean(gaps), rel=1e-3)


def test_an_estimate_of_kl_is_right_on_average(config, models):
    """A single token: there the divergence can be computed in full."""
    from transformers import AutoModelForCausalLM

    base, run = models
    settings = replace(config, max_new_tokens=1, samples=400, decoding="sampled", temperature=0.7)
    figures = judged(settings)[run, "sampled"].figures
    tokenizer = Tokenizer.from_pretrained(base)
    expected = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.encode(prompt)])
        with torch.no_grad():
            before, after = (
                (AutoModelForCausalLM.from_pretrained(p)(ids).logits[0, -1] / 0.7).log_softmax(-1)
                for p in (base, f"{run}/model")
            )
        expected.append(float((after.exp() * (after - before)).sum()))
    assert figures["kl"].value == pytest.approx(np.mean(expected), rel=0.25)


def test_a_run_is_judged_as_it_wrote(config, models, tmp_path, screen):
    base, _ = models
    settings = RunConfig(model=base, reward=REWARD, max_new_tokens=6, temperature=0.05, top_k=3)
    save_config(settings, tmp_path / "run" / "config.yaml")
    output = tmp_path / "judged"
    as_run = judged(replace(config, decoding="sampled", output=output), screen)
    assert "Drawn with temperature 0.05, top_k 3." in screen.export_text()
    told = judged(replace(config, decoding="sampled", temperature=0.05, top_k=3))
    other = judged(replace(config, decoding="sampled", temperature=1.0, top_k=0))
    texts = [[e.text for j in each.values() for e in j.episodes] for each in (as_run, told, other)]
    assert texts[0] == texts[1] != texts[2]
    recorded = json.loads((output / "eval.json").read_text(encoding="utf-8"))["settings"]
    assert [recorded[name] for name in ("temperature", "top_k", "top_p")] == [0.05, 3, 1.0]


def test_the_same_model_twice(config, models, screen):
    base, _ = models
    settings = replace(config, model=(base, base), reference=base, decoding="greedy")
    judgements = judged(settings, screen)
    assert [model for model, _ in judgements] == [f"{base} (1)", f"{base} (2)"]
    first, second = judgements.values()
    assert [e.text for e in first.episodes] == [e.text for e in second.episodes]
    assert f"Gain: of the score over that of {base} (1)" in " ".join(screen.export_text().split())


def test_how_prompts_are_put_is_told_of_each_model(config, models, tmp_path, screen):
    base, run = models
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (tmp_path / "run" / "model" / "chat_template.jinja").write_text(template)
    judgements = judged(replace(config, decoding="greedy"), screen)
    assert [judgement.is_chat for judgement in judgements.values()] == [False, True]
    shown = " ".join(screen.export_text().split())
    assert f"Prompts of {base} are plain text." in shown
    assert f"Prompts of {run} are chat messages, by the model's template." in shown


def test_a_reward_of_ones_own_is_told_by_its_name(config, screen):
    judged(replace(config, reward=[count_letters, "length"], decoding="greedy"), screen)
    header = screen.export_text().partition("\u2501")[0].partition("\u250f")[0]
    assert "reward count_letters + length" in " ".join(header.split())


def count_letters(text):
    return float(len(text))


def test_the_likeliest_texts_are_the_same_whatever_the_seed(config):
    greedy = [judged(replace(config, decoding="greedy", seed=seed, n_envs=n)) for seed, n in
              ((0, 64), (1, 2))]  # fmt: skip
    texts = [[e.text for j in judgements.values() for e in j.episodes] for judgements in greedy]
    assert texts[0] == texts[1]


def test_several_texts_a_prompt(config, models):
    judgement = judged(replace(config, samples=3, decoding="sampled", n_envs=4))[
        models[1], "sampled"
    ]
    assert [e.prompt for e in judgement.episodes] == [p for p in PROMPTS for _ in range(3)]
    scores = np.array([e.score for e in judgement.episodes]).reshape(5, 3)
    score = judgement.figures["score"]
    assert score.value == pytest.approx(scores.mean())
    width = scores.mean(1).std(ddof=1) / np.sqrt(5) * 2.7764
    assert score.high - score.value == pytest.approx(width, rel=1e-3)


def test_files(config, models, tmp_path):
    output = tmp_path / "judged" / "here"
    judgements = judged(replace(config, output=output, samples=2))
    content = json.loads((output / "eval.json").read_text(encoding="utf-8"))
    assert content["settings"]["reward"] == REWARD
    assert content["settings"]["max_new_tokens"] == 6
    assert content["settings"]["task"] == "letters"
    with (output / "eval.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for record, row, (key, judgement) in zip(
        content["judgements"], rows, judgements.items(), strict=True
    ):
        assert (record["model"], record["decoding"]) == (row["model"], row["decoding"]) == key
        assert [e["text"] for e in record["episodes"]] == [e.text for e in judgement.episodes]
        samples = 2 if key[1] == "sampled" else 1
        indices = [e["prompt_index"] for e in record["episodes"]]
        assert indices == [i for i in range(5) for _ in range(samples)]
        for name, estimate in judgement.figures.items():
            for part, column in (("value", name), ("low", f"{name}_low"), ("high", f"{name}_high")):
                number = getattr(estimate, part)
                if math.isnan(number):
                    assert record["figures"][name][part] is None
                    assert row[column] == ""
                else:
                    assert record["figures"][name][part] == number
                    assert float(row[column]) == pytest.approx(number, rel=1e-5)
    assert rows[0]["gain"] == ""
    assert rows[1]["kl"] == ""
    assert {path.name for path in output.iterdir()} == {"eval.json", "eval.csv"}


def test_texts_are_shown_side_by_side(config, models, screen):
    judgements = judged(replace(config, show=2, decoding="greedy"), screen)
    shown = screen.export_text().partition("Texts, greedy")[2]
    for model in models:
        for episode in judgements[model, "greedy"].episodes[:2]:
            assert episode.text in shown
    many = replace(config, model=(*models, *models), show=2, decoding="greedy")
    judged(many, screen)
    stacked = screen.export_text().partition("Texts, greedy")[2]
    for judgement in judgements.values():
        assert stacked.count(judgement.episodes[1].text) >= 2
    assert "Texts" not in (judged(replace(config, show=0), screen), screen.export_text())[1]


def test_prompts_of_the_split(config, models):
    judgements = judged(replace(config, prompts=2, decoding="greedy"))
    for judgement in judgements.values():
        assert [episode.prompt for episode in judgement.episodes] == PROMPTS[:2]
    with pytest.raises(ValueError, match="--prompts 6: split 'test' of task 'letters' has 5"):
        judged(replace(config, prompts=6))
    with pytest.raises(ValueError, match="no examples in split 'validation'"):
        judged(replace(config, split="validation"))


def test_no_such_model(config, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        judged(replace(config, model=(str(tmp_path / "nowhere"),)))


def test_no_reference_and_why(config, models, tmp_path, make_llama, byte_tokenizer_dir, screen):
    base, run = models
    alone = judged(replace(config, model=(base,)), screen)[base, "sampled"]
    assert alone.reference is None
    assert "kl" not in alone.figures
    assert "--reference" in screen.export_text()
    other = save(make_llama(vocab_size=257), tmp_path / "other", byte_tokenizer_dir)
    both = judged(replace(config, model=(base, other), reference=base), screen)
    assert "kl" in both[base, "sampled"].figures
    assert "kl" not in both[other, "sampled"].figures
    assert "another vocabulary" in both[other, "sampled"].no_reference
    assert "another vocabulary" in screen.export_text()
    (tmp_path / "base" / "config.json").unlink()
    (tmp_path / "base" / "tokenizer.json").unlink()
    gone = judged(replace(config, model=(run,)))[run, "sampled"]
    assert base in gone.no_reference
    with pytest.raises(FileNotFoundError):
        judged(replace(config, model=(run,), reference=base))


def test_an_adapters_base_is_its_reference(config, models, tmp_path, tiny_tokenizer_dir):
    from agents.models import load_model, with_lora

    base, _ = models
    adapted = with_lora(load_model(base), {"r": 2, "target_modules": ["q_proj", "v_proj"]})
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora" in name:
                parameter += 0.5
    directory = save(adapted, tmp_path / "adapter", tiny_tokenizer_dir)
    settings = replace(config, model=(directory,), decoding="sampled")
    by_itself = judged(settings)[directory, "sampled"]
    told = judged(replace(settings, reference=base))[directory, "sampled"]
    assert by_itself.figures["kl"].value == pytest.approx(told.figures["kl"].value, abs=1e-4)
    assert by_itself.figures["kl"].value > 0.1
    assert by_itself.figures["perplexity"].value == pytest.approx(
        told.figures["perplexity"].value, rel=1e-4
    )


def test_prompts_of_a_stream(config, models):
    task = replace(TASK, splits={"test": Letters()})
    judgements = judged(replace(config, task=task, prompts=4, decoding="greedy"))
    prompts = [[episode.prompt for episode in j.episodes] for j in judgements.values()]
    assert prompts[0] == prompts[1]
    assert len(prompts[0]) == 4
    with pytest.raises(ValueError, match="has no end: say how many prompts of it with --prompts"):
        judged(replace(config, task=task))


class Letters:
    def draw(self, generator):
        letters = "".join(generator.choice(list("abcdefghij"), 3))
        return Example(letters, letters[::-1])
