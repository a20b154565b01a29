"""What tests of the agents share."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from agents.rollout import Step

_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}

FAMILIES = {
    "bart": {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4},
    "bert": {},
    "bloom": {"n_layer": 2, "n_head": 4},  # alibi
    "codegen": {**_GPT, "n_ctx": 64, "rotary_dim": 4},
    "cohere": {"logit_scale": 0.25},  # a scaled head
    "cohere2": {"logit_scale": 0.25, "sliding_window": 4},
    "deepseek_v3": {  # what is cached is smaller than the keys, and made larger again
        "first_k_dense_replace": 1,
        "kv_lora_rank": 16,
        "moe_intermediate_size": 16,
        "n_group": 1,
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 4,
        "topk_group": 1,
        "v_head_dim": 8,
    },
    "ernie4_5": {"head_dim": 8},
    "exaone4": {"sliding_window": 4},
    "falcon": {},
    "gemma": {"head_dim": 8},  # scaled embeddings
    "gemma2": {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 4},  # soft caps
    "gemma3_text": {"head_dim": 8, "sliding_window": 4},  # windows in some layers
    "gemma3n_text": {  # layers that share keys and values
        "activation_sparsity_pattern": [0.0] * 4,
        "head_dim": 8,
        "hidden_size_per_layer_input": 8,
        "intermediate_size": [48] * 4,
        "laurel_rank": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "sliding_window": 4,
        "vocab_size_per_layer_input": 120,
    },
    "glm": {"head_dim": 8},
    "glm4": {"head_dim": 8},
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,  # heads that share one key
    "gpt_neo": {
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 4,
    },
    "gpt_neox": {},
    "gpt_oss": {"head_dim": 8, "sliding_window": 4, **_LOCAL_EXPERTS},  # attention sinks
    "gptj": {**_GPT, "rotary_dim": 4},
    "granite": {"logits_scaling": 4.0},  # a scaled head
    "granitemoehybrid": {
        "layer_types": ["mamba", "attention"],
        "mamba_chunk_size": 8,
        "mamba_d_head": 16,
        "mamba_d_state": 8,
        "mamba_n_groups": 1,
        "mamba_n_heads": 4,
        "num_local_experts": 0,
        "shared_intermediate_size": 32,
    },
    "lfm2": {"block_multiple_of": 8, "layer_types": ["conv", "full_attention"]},
    "llama": {},
    "llama4_text": {  # attention in chunks
        "attention_chunk_size": 4,
        "head_dim": 8,
        "intermediate_size_mlp": 48,
        "num_local_experts": 2,
    },
    "mamba": {"state_size": 4, "time_step_rank": 4},
    "mamba2": {"chunk_size": 8, "head_dim": 16, "n_groups": 1, "num_heads": 4, "state_size": 8},
    "mistral": {"sliding_window": 4},
    "mixtral": {"sliding_window": 4, **_LOCAL_EXPERTS},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64, "expansion_ratio": 2},
    "nemotron": {},
    "olmo2": {},
    "olmo3": {"sliding_window": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 16},  # the head is narrower than the trunk
    "phi": {},
    "phi3": {"sliding_window": 4},
    "qwen2": {"max_window_layers": 1, "sliding_window": 4, "use_sliding_window": True},
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 16},
    "qwen3": {"head_dim": 8},
    "qwen3_5_text": {
        "head_dim": 8,
        "layer_types": ["linear_attention", "full_attention"],
        "linear_key_head_dim": 8,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_value_head_dim": 8,
    },
    "qwen3_moe": {**_EXPERTS, "head_dim": 8},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32, "head_dim": 8},
    "roberta": {"is_decoder": True, "pad_token_id": 1},
    "rwkv": {"attention_hidden_size": 32, "context_length": 64},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {"sliding_window": 4},
    "textgym_recurrent": {"kind": "lstm"},  # ours
    "xglm": {"attention_heads": 4, "d_model": 32, "ffn_dim": 48, "num_layers": 2},
}


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, and lose much where another job has the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def make_family():
    """Builds a tiny random causal LM of one of many families, with 64 positions and 120 tokens."""

    def make(family, **overrides):
        from transformers import AutoModelForCausalLM
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        import agents.recurrent  # noqa: F401  # so that transformers knows it

        config = CONFIG_MAPPING[family](
            **{
                "vocab_size": 120,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": 64,
                "bos_token_id": None,
                "eos_token_id": 0,
                "pad_token_id": 0,
                **FAMILIES[family],
                **overrides,
            }
        )
        for name in ("initializer_range", "init_std"):  # the usual 0.02 hardly tells tokens apart
            if hasattr(config, name):
                setattr(config, name, 0.2)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        if family == "textgym_recurrent":
            model.lm_head.weight.data *= 4  # fresh ones hardly tell tokens apart either
        return model

    return make


@pytest.fixture(scope="session")
def shake():
    """Moves all weights of a policy, as an update would, and those of its fresh value head."""

    def shake(policy, seed=0):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
            policy.value_net.weight += 0.3 * torch.randn(
                policy.value_net.weight.shape, generator=generator
            )
        return policy

    return shake


@pytest.fixture
def text_kwargs(tiny_tokenizer_dir, tmp_path):
    """Prompts of 1 to 5 tokens, and episodes of 1 to 6: some end with a token, some are cut."""
    prompts = ["abcde"[:length] for length in range(1, 6)] * 4
    rows = [f'{{"prompt": "{prompt}", "reference": "{prompt[::-1]}"}}' for prompt in prompts]
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(rows), encoding="utf-8")
    return {
        "task": {"name": "file", "path": str(path)},
        "reward": ["edit_distance", {"name": "length", "weight": 0.5, "target": 4}],
        "tokenizer": tiny_tokenizer_dir,
        "max_new_tokens": 6,
    }


@pytest.fixture
def make_token_ppo(make_model, text_kwargs):
    """Makes a TokenPPO, or another algorithm, of a tiny random model; always the same one.

    Its mini-batches are whole rollouts.
    """
    from agents import TokenPPO, TransformerPolicy, make_sb3_vec_env

    def make(algorithm=TokenPPO, policy=None, *, n_envs=4, n_steps=16, model=None, **settings):
        env = make_sb3_vec_env("TextGen-v0", n_envs, seed=0, env_kwargs=text_kwargs)
        torch.manual_seed(0)
        return algorithm(
            TransformerPolicy,
            env,
            n_steps=n_steps,
            policy_kwargs={"model": model or make_model(vocab_size=11), **(policy or {})},
            **{"batch_size": n_steps * n_envs, "seed": 0, **settings},
        )

    return make


@pytest.fixture(scope="session")
def collect():
    """Lets an algorithm collect a rollout, as `learn` does; returns its buffer."""

    def collect(algorithm):
        if algorithm._last_obs is None:
            algorithm._setup_learn(10_000)
        buffer = algorithm.rollout_buffer
        callback = algorithm._init_callback(None)
        assert algorithm.collect_rollouts(algorithm.env, callback, buffer, algorithm.n_steps)
        return buffer

    return collect


@pytest.fixture
def prescribe(monkeypatch):
    """Makes policies write given tokens (T, n), a row a step, instead of drawing them.

    Stock algorithms and ours take from the same script, each from its beginning.
    """
    from stable_baselines3.common.distributions import CategoricalDistribution

    def prescribe(script):
        for_stock, for_ours = iter(torch.as_tensor(script)), iter(torch.as_tensor(script))

        def draw(logits):
            tokens = next(for_ours)
            return tokens, logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0]

        monkeypatch.setattr(CategoricalDistribution, "sample", lambda _: next(for_stock))
        monkeypatch.setattr("agents.sampler.draw", draw)

    return prescribe


@pytest.fixture(scope="session")
def fill():
    """Fills a `TokenRolloutBuffer` as a rollout would, by chance; returns the text of each token.

    Texts go on, end, and are answered: then more than the token that was written is there.
    """

    def fill(buffer, seed, vocab_size=11, capacity=12):
        rng = np.random.default_rng(seed)
        n = buffer.n_envs

        def tokens(most):
            return rng.integers(1, vocab_size, size=rng.integers(1, most + 1)).tolist()

        def observed(texts):
            ids, mask = np.zeros((n, capacity), np.int64), np.zeros((n, capacity), np.int8)
            for row, text in enumerate(texts):
                ids[row, : len(text)], mask[row, : len(text)] = text, 1
            return {"input_ids": ids, "attention_mask": mask}

        texts = [tokens(capacity - 1) for _ in range(n)]
        starts, dones, history = np.ones(n, np.bool_), np.zeros(n, np.bool_), []
        buffer.reset()
        buffer.begin(np.arange(n), observed(texts))
        for _ in range(buffer.buffer_size):
            history.append(texts)
            actions, before = rng.integers(vocab_size, size=n), observed(texts)
            texts = [[*text, action] for text, action in zip(texts, actions.tolist(), strict=True)]
            dones = (rng.random(n) < 0.15) | np.array([len(text) == capacity for text in texts])
            answered = (rng.random(n) < 0.1) & ~dones
            for row in range(n):
                if dones[row]:
                    texts[row] = tokens(capacity - 1)
                elif answered[row]:
                    texts[row] = (texts[row] + tokens(3))[: capacity - 1]
            (begun,) = (dones | answered).nonzero()
            numbers = rng.normal(size=(3, n)).astype(np.float32)
            step = Step(
                observations=before,
                actions=actions,
                log_probs=-np.abs(numbers[0]),
                values=numbers[1],
                rewards=numbers[2],
                dones=dones,
                infos=[{}] * n,
                terminal_values=np.zeros(n, np.float32),
                new_observations=observed(texts),
                begun=begun,
                rows=np.arange(n),
            )
            buffer.add_step(step, starts, buffer.gamma)
            starts = dones
        buffer.trim()
        buffer.compute_returns_and_advantage(rng.normal(size=n).astype(np.float32), dones)
        return history

    return fill
