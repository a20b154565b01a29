import copy
import json
import os
import shutil
import sys
from functools import partial

import pytest
import torch
from stable_baselines3 import PPO
from transformers import AutoModelForCausalLM, AutoTokenizer

from agents import TransformerPolicy, make_sb3_vec_env
from agents.adapters import base_of, merged
from agents.models import load_model, with_lora
from textgym.extras import MissingExtra
from textgym.models import BUILTIN_DIRECTORY

peft = pytest.importorskip("peft")

pytestmark = [  # PEFT's own
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*a tied layer is part of the adapter:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers`:UserWarning"),
]

IDS = torch.arange(1, 11).view(2, 5)
LORAS = {
    "plain": {"r": 4},
    "all layers": {"r": 4, "target_modules": "all-linear"},
    "head whole": {"r": 4, "modules_to_save": ["lm_head"]},
    "embeddings whole": {"r": 4, "modules_to_save": ["embed_tokens"]},
    "head": {"r": 4, "target_modules": ["q_proj", "lm_head"]},
    "embeddings": {"r": 4, "target_modules": ["q_proj", "embed_tokens"]},
    "dora": {"r": 4, "use_dora": True},
}


@torch.no_grad()
def logits_of(model):
    return model.eval()(IDS).logits


def shaken(model):
    """Move what is trained, as an update would."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def base(make_llama, tiny_tokenizer_dir, tmp_path):
    """The directory of a tiny random model with its tokenizer."""
    directory = tmp_path / "base"
    shutil.copytree(tiny_tokenizer_dir, directory)
    make_llama(vocab_size=16, initializer_range=0.2).save_pretrained(directory)
    return directory


@pytest.fixture
def adapter(base, tmp_path):
    """The directory of an adapter, and the logits of the model with it."""
    model = shaken(with_lora(load_model(base), {"r": 4}))
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", logits_of(model)


def point_to(adapter, base):
    """Make an adapter say that it was trained on another model."""
    file = adapter / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({**config, "base_model_name_or_path": base}))


# Where the model is that an adapter was trained on


def test_an_adapter_says_where_its_model_is(adapter, base, tmp_path, monkeypatch):
    directory, expected = adapter
    assert base_of(directory) == str(base)
    assert torch.equal(logits_of(load_model(directory)), expected)
    monkeypatch.chdir(tmp_path)
    with_lora(load_model("base"), True).save_pretrained("relative")  # and found from elsewhere
    monkeypatch.chdir("/")
    assert base_of(tmp_path / "relative") == str(base)


@pytest.mark.parametrize("said", ["base", "./base", "../base"])
@pytest.mark.parametrize("start", ["here", "elsewhere"])
def test_a_relative_model(adapter, tmp_path, monkeypatch, said, start):
    directory, expected = adapter
    monkeypatch.chdir(tmp_path if start == "here" else "/")
    if said == "../base" or start == "here":
        point_to(directory, said)
    else:
        point_to(directory, f"../{said}")
    assert torch.equal(logits_of(load_model(directory)), expected)


def test_an_adapter_and_its_model_are_moved_together(adapter, base, tmp_path):
    directory, expected = adapter
    point_to(directory, "../base")
    (tmp_path / "new").mkdir()
    for moved in (directory, base):
        moved.rename(tmp_path / "new" / moved.name)
    assert torch.equal(logits_of(load_model(tmp_path / "new" / "adapter")), expected)


@pytest.mark.parametrize("said", ["builtin", "/old/site-packages/textgym/assets/builtin"])
def test_an_adapter_of_the_builtin_model(tmp_path, said):
    model = shaken(with_lora(load_model("builtin"), {"r": 2}))
    model.save_pretrained(tmp_path)
    assert base_of(tmp_path) == str(BUILTIN_DIRECTORY)
    point_to(tmp_path, said)
    assert base_of(tmp_path) in ("builtin", str(BUILTIN_DIRECTORY))
    assert torch.equal(logits_of(load_model(tmp_path)), logits_of(model))


def test_a_directory_that_is_only_called_like_a_model_is_another(adapter):
    directory, _ = adapter
    point_to(directory, "/somewhere/models/builtin")
    assert base_of(directory) == "/somewhere/models/builtin"


def test_an_adapter_of_a_gguf_files_copy_whose_cache_was_moved(
    adapter, base, tmp_path, monkeypatch
):
    directory, expected = adapter
    copy_of_file = tmp_path / "cache" / "models" / "0123456789" / "tiny"
    shutil.copytree(base, copy_of_file)
    point_to(directory, "/home/someone/.cache/textgym/models/0123456789/tiny")
    monkeypatch.setenv("TEXTGYM_CACHE", str(tmp_path / "cache"))
    assert base_of(directory) == str(copy_of_file)
    assert torch.equal(logits_of(load_model(directory)), expected)
    monkeypatch.setenv("TEXTGYM_CACHE", str(tmp_path / "no cache"))
    assert base_of(directory) == "/home/someone/.cache/textgym/models/0123456789/tiny"


def test_a_model_that_is_gone(adapter, base):
    directory, _ = adapter
    shutil.rmtree(base)
    with pytest.raises(
        FileNotFoundError,
        match=f"adapter in {directory} needs the model .* not at '{base}'.*base_model_name_or_path",
    ):
        load_model(directory)


@pytest.mark.parametrize("said", [None, ""])
def test_an_adapter_that_does_not_say(adapter, said):
    directory, _ = adapter
    point_to(directory, said)
    with pytest.raises(ValueError, match=r"adapter_config\.json does not say what model"):
        load_model(directory)


@pytest.mark.parametrize("whole", [False, True])
def test_an_adapter_is_never_left_out(adapter, base, monkeypatch, whole):
    directory, _ = adapter
    if whole:  # the adapter stands beside its model
        for file in base.iterdir():
            shutil.copy(file, directory)
        assert (load_model(directory).peft_config["default"]).r == 4
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra, match=rf"adapter in {directory} needs peft.*\[lora\]"):
        load_model(directory)


# The model and its adapter as one


@pytest.fixture(params=["in memory", "loaded"])
def adapt(request, make_llama, tmp_path):
    """A model with an adapter that was trained, from PEFT or from transformers."""

    def adapt(lora, make=make_llama, **config):
        make(**{"vocab_size": 16, "initializer_range": 0.2, **config}).save_pretrained(
            tmp_path / "base"
        )
        model = shaken(with_lora(load_model(tmp_path / "base"), lora))
        if request.param == "in memory":
            return model
        model.save_pretrained(tmp_path / "adapter")
        return load_model(tmp_path / "adapter")

    return adapt


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("lora", LORAS)
def test_the_adapter_is_folded_in(adapt, tmp_path, lora, tied):
    model = adapt(LORAS[lora], tie_word_embeddings=tied)
    expected, before = logits_of(model), copy.deepcopy(model.state_dict())
    merged(model).save_pretrained(tmp_path / "merged")
    assert {file.name for file in (tmp_path / "merged").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    assert type(plain) is type(base)
    assert not hasattr(plain, "peft_config")
    assert (expected - logits_of(base)).abs().max() > 0.01
    torch.testing.assert_close(logits_of(plain), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(logits_of(model), expected)
    after = model.state_dict()
    assert all(torch.equal(after.pop(key), value) for key, value in before.items())
    assert not after


def test_layers_that_hold_their_weights_the_other_way_round(adapt, tmp_path, make_family):
    model = adapt({"r": 4, "target_modules": ["c_attn", "c_proj"]}, partial(make_family, "gpt2"))
    merged(model).save_pretrained(tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    torch.testing.assert_close(logits_of(plain), logits_of(model), atol=1e-5, rtol=1e-5)


def test_a_model_without_an_adapter_is_itself(make_llama):
    model = make_llama()
    assert merged(model) is model


def test_a_trained_prompt_cannot_be_folded_in(make_llama):
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ValueError, match="PROMPT_TUNING cannot be folded"):
        merged(peft.get_peft_model(make_llama(), config))


# A policy


@pytest.fixture
def make_ppo(tiny_tokenizer_dir, base):
    def make(model=base, lora=None, **policy_kwargs):
        env_kwargs = {
            "task": {"name": "target_token", "targets": [*"abcdefghij"], "num_prompts": 10},
            "reward": "target_token",
            "tokenizer": tiny_tokenizer_dir,
            "max_new_tokens": 6,
        }
        env = make_sb3_vec_env("TextGen-v0", 2, seed=0, env_kwargs=env_kwargs)
        torch.manual_seed(0)
        policy_kwargs = {"model": model, "lora": lora, **policy_kwargs}
        return PPO(
            TransformerPolicy,
            env,
            seed=0,
            n_steps=8,
            batch_size=16,
            n_epochs=1,
            learning_rate=0.01,
            policy_kwargs=policy_kwargs,
        )

    return make


@pytest.mark.parametrize("lora", [{"r": 2}, {"r": 2, "modules_to_save": ["lm_head"]}])
def test_a_policy_is_saved_with_and_without_its_adapter(make_ppo, base, tmp_path, lora):
    policy = make_ppo(lora=lora).learn(32).policy
    policy.save_pretrained(tmp_path / "adapter")
    policy.save_pretrained(tmp_path / "whole", merged=True)
    expected = logits_of(policy.backbone.model)
    assert (expected - logits_of(AutoModelForCausalLM.from_pretrained(base))).abs().max() > 1e-3
    theirs = [
        AutoModelForCausalLM.from_pretrained(tmp_path / "adapter"),
        peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter"),
        peft.PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter"
        ),
    ]
    for model in theirs:
        assert torch.equal(logits_of(model), expected)
    shutil.rmtree(base)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(logits_of(whole), expected, atol=1e-5, rtol=1e-5)
    assert len(AutoTokenizer.from_pretrained(tmp_path / "whole")) == 11
    restored = make_ppo(tmp_path / "whole").policy
    assert torch.equal(restored.value_net.weight, policy.value_net.weight)
    assert restored.value_net.weight.abs().sum() > 0


@pytest.mark.parametrize("gradient_checkpointing", [False, True])
def test_saving_leaves_training_as_it_is(make_ppo, tmp_path, gradient_checkpointing):
    weights = []
    for save in (False, True):
        ppo = make_ppo(lora={"r": 2}, gradient_checkpointing=gradient_checkpointing).learn(32)
        if save:
            ppo.policy.save_pretrained(tmp_path / "whole", merged=True)
        ppo.learn(32, reset_num_timesteps=False)
        weights.append(ppo.policy.state_dict())
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())


@pytest.mark.parametrize("first", [True, False], ids=["whole first", "adapter first"])
def test_one_is_saved_over_the_other(make_ppo, tmp_path, first):
    policy = make_ppo(lora={"r": 2}).learn(32).policy
    expected = logits_of(policy.backbone.model)
    for whole in (first, not first):
        policy.save_pretrained(tmp_path / "saved", merged=whole)
        for load in (load_model, AutoModelForCausalLM.from_pretrained):
            loaded = load(tmp_path / "saved")
            torch.testing.assert_close(logits_of(loaded), expected, atol=1e-5, rtol=1e-5)
            assert getattr(loaded, "_hf_peft_config_loaded", False) is not whole
    assert not [name for name in os.listdir(tmp_path / "saved") if name.startswith(".")]


def test_an_adapter_that_was_trained_on_still_knows_its_model(make_ppo, adapter, base, tmp_path):
    policy = make_ppo(adapter[0]).learn(32).policy
    policy.save_pretrained(tmp_path / "again")
    assert base_of(tmp_path / "again") == str(base)
    expected = logits_of(policy.backbone.model)
    assert not torch.equal(expected, adapter[1])
    assert torch.equal(logits_of(load_model(tmp_path / "again")), expected)
    policy.save_pretrained(tmp_path / "whole", merged=True)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(logits_of(whole), expected, atol=1e-5, rtol=1e-5)


def test_a_policy_on_the_builtin_model(tmp_path):
    env = make_sb3_vec_env("TextGen-v0", 1, env_kwargs={"max_new_tokens": 4})
    ppo = PPO(TransformerPolicy, env, n_steps=4, batch_size=4, policy_kwargs={"lora": {"r": 2}})
    policy = ppo.learn(4).policy
    policy.save_pretrained(tmp_path)
    for load in (peft.AutoPeftModelForCausalLM, AutoModelForCausalLM):
        loaded = load.from_pretrained(tmp_path, dtype=torch.float32)
        assert torch.equal(logits_of(loaded), logits_of(policy.backbone.model))
