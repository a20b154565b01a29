"""Tiny random networks, saved as a person would have them: model and tokenizer in a directory."""

import pytest
import torch

CLASSIFIERS = {
    "bert": {"max_position_embeddings": 64},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "llama": {"max_position_embeddings": 64, "num_key_value_heads": 2},
    "roberta": {"max_position_embeddings": 66, "pad_token_id": 1},  # positions count from 2
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},  # looks at the last column
}


@pytest.fixture
def make_classifier(byte_tokenizer, tmp_path):
    """Saves a random classifier of a family, with the byte tokenizer; returns its directory."""
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    def make(family="bert", labels=("NEGATIVE", "POSITIVE"), directory=None, seed=0, **overrides):
        directory = directory or tmp_path / f"{family}-{len(labels)}"
        config = CONFIG_MAPPING[family](
            **{
                "vocab_size": 257,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 4,
                "bos_token_id": None,
                "eos_token_id": 0,
                "pad_token_id": 0,
                "initializer_range": 0.2,
                "id2label": dict(enumerate(labels)),
                "label2id": {label: i for i, label in enumerate(labels)},
                **CLASSIFIERS[family],
                **overrides,
            }
        )
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config)
        model.save_pretrained(directory)
        byte_tokenizer.save_pretrained(directory)
        return str(directory)

    return make


@pytest.fixture
def plain_logits():
    """What a saved classifier says of one text, by a forward of its own."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    @torch.no_grad()
    def plain_logits(directory, text):
        model = AutoModelForSequenceClassification.from_pretrained(directory).eval()
        ids = AutoTokenizer.from_pretrained(directory)(text)["input_ids"] or [0]
        return model(torch.tensor([ids])).logits[0]

    return plain_logits
