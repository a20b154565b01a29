"""Lets two processes train one sharded policy, and each of them the same policy unsharded.

A program of its own, for `test_sharding.py`. Writes down what each process found of each policy.
"""

import json
import sys
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from processes_of_test import fork
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM, GPT2Config, GraniteConfig, LlamaConfig

from agents import TransformerPolicy
from agents.distributed.sharding import Sharded
from agents.distributed.whole import load_whole, whole
from agents.reference import Reference
from agents.sampler import Sampler
from agents.scoring import SequenceBatch
from agents.weights import load_weights, save_weights, trained_weights

PROCESSES = 2
TOKENS, LENGTH = 31, 24  # of which two processes have different numbers of rows
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SIZES |= {"num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True}
SMALL = {"vocab_size": TOKENS, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 0}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "initializer_range": 0.2}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "tied": (LlamaConfig(**SMALL, **SIZES, initializer_range=0.2), {}),
    "adapters": (GPT2Config(**SMALL, **GPT), {"lora": {"r": 4}}),
    "checkpointing": (GPT2Config(**SMALL, **GPT), {"gradient_checkpointing": True}),
    # Its head is not all that makes logits.
    "scaled head": (
        GraniteConfig(**SMALL, **SIZES, initializer_range=0.2, logits_scaling=4.0),
        {"dtype": "bfloat16"},
    ),
    "recurrent": (None, {"backbone": {"name": "lstm", "width": 32}}),
}
PROMPT = (torch.tensor([[1, 2, 3]]), torch.ones(1, 3, dtype=torch.long))
SPACE = spaces.Dict(
    input_ids=spaces.Box(0, TOKENS, (LENGTH,), np.int64),
    attention_mask=spaces.Box(0, 1, (LENGTH,), np.int8),
)


def make_policy(name: str) -> TransformerPolicy:
    """A policy with a value head that says something; always the same one."""
    config, network = MODELS[name]
    torch.manual_seed(0)
    if config is not None:
        network = {**network, "model": AutoModelForCausalLM.from_config(config)}
    policy = TransformerPolicy(SPACE, spaces.Discrete(TOKENS), lambda _: 1e-2, **network)
    with torch.no_grad():
        policy.value_net.weight.normal_()
    policy.reader_class  # noqa: B018  # found out by reading, as algorithms do at their start
    return policy


def texts(count: int, seed: int) -> SequenceBatch:
    """Some random texts of which the last six tokens were written."""
    length = 9
    ids = torch.randint(TOKENS, (count, length), generator=torch.Generator().manual_seed(seed))
    at = torch.cat([torch.arange(length - 7, length - 1) + row * length for row in range(count)])
    return SequenceBatch(ids, at, ids.flatten()[at + 1], np.arange(len(at)))


BATCHES = [texts(3, 1), texts(2, 2), texts(1, 3)]
OF_PROCESS = [[(0, 1.0), (0, 0.0)], [(1, 1.0), (2, 1.0)]]
"""What each process reads, and whether it counts: both make two passes."""


def loss(policy: TransformerPolicy, batch: SequenceBatch, weight: float) -> torch.Tensor:
    """A loss in which every output is, as its share in the mean over all tokens."""
    # Logits of five tokens at a time.
    values, log_probs, entropies = policy.evaluate_sequences(batch, 5 * TOKENS)
    total = (3 * log_probs.exp() + 0.1 * entropies + values.square()).sum()
    return weight * total / sum(len(batch.tokens) for batch in BATCHES)


def step_alone(policy: TransformerPolicy) -> float:
    """A step on all texts; the norm of its gradient."""
    policy.optimizer.zero_grad()
    for batch in BATCHES:
        loss(policy, batch, 1.0).backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
    policy.optimizer.step()
    return float(norm)


def step_together(policy: TransformerPolicy, sharded: Sharded, process: int) -> float:
    """The same step, with a part of the texts."""
    policy.optimizer.zero_grad()
    for index, weight in OF_PROCESS[process]:
        # Gradients are means over processes.
        piece = sharded.root(loss, policy, BATCHES[index], weight * PROCESSES)
        piece.backward()
    norm = torch.nn.utils.clip_grad_norm_(policy.parameters(), 0.5)
    policy.optimizer.step()
    return float(whole(norm))


@torch.inference_mode()
def write(policy: TransformerPolicy, steps: int, seed: int) -> list[list[int]]:
    """Tokens that a policy writes in three rows."""
    torch.manual_seed(seed)
    sampler = Sampler(policy, 3)
    sampler.begin(np.arange(3), np.array([[1, 2, 3], [4, 5, 0], [6, 0, 0]]), np.array([3, 2, 1]))
    drawn = []
    for _ in range(steps):
        drawn.append(sampler.sample().tokens)
        sampler.append(drawn[-1])
    return torch.stack(drawn).tolist()


def distance(plain: TransformerPolicy, policy: TransformerPolicy) -> float:
    """The largest difference between their weights."""
    others = whole(dict(policy.named_parameters()))
    return max(far(p, others[name]) for name, p in plain.named_parameters())


def far(one: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference."""
    return float((one.detach() - other.detach()).abs().max())


def held(policy: TransformerPolicy) -> int:
    """Bytes of the weights that are here."""
    here = (p.to_local() if isinstance(p, DTensor) else p for p in policy.parameters())
    return sum(p.numel() * p.element_size() for p in here)


def states(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """All tensors that an optimizer remembers of parameters that have a gradient, whole."""
    of_parameters = whole(optimizer.state_dict())["state"]
    of_one = [values for _, values in sorted(of_parameters.items()) if values["exp_avg"].any()]
    return [values[name] for values in of_one for name in sorted(values)]


def examine(name: str, process: int, directory: Path) -> dict[str, Any]:
    """Train a policy both ways, and take it through all that a run does with it."""
    found: dict[str, Any] = {}
    mesh = init_device_mesh("cpu", (PROCESSES,))
    plain, policy = make_policy(name), make_policy(name)
    start = make_policy(name)
    reference = Reference(policy)
    found["whole_bytes"] = held(policy)
    sharded = Sharded(policy, mesh, policy.optimizer)
    of_reference = Sharded(reference, mesh) if list(reference.parameters()) else None

    with torch.inference_mode(), sharded.gathered(), (of_reference or sharded).gathered():
        write(policy, 1, process)
    found["norms"] = [(step_alone(plain), step_together(policy, sharded, process))]
    found["held_bytes"] = held(policy)

    # Each writes as many tokens as it likes.
    steps = 3 + 2 * process
    with sharded.gathered():
        found["gathered_bytes"] = held(policy)
        with sharded.gathered():
            found["written"] = write(policy, steps, process)
        found["written"] += write(policy, 1, process)
    found["written_alone"] = write(plain, steps, process) + write(plain, 1, process)
    found["held_bytes_again"] = held(policy)

    with sharded.gathered(), (of_reference or sharded).gathered():
        batch = BATCHES[process]
        found["reference"] = far(
            reference.log_probs(policy.sampling, batch),
            Reference(start).log_probs(policy.sampling, batch),
        )
    found["norms"] += [(step_alone(plain), step_together(policy, sharded, process))]
    found["distance"] = distance(plain, policy)
    found["moved"] = distance(start, policy)

    # To one process.
    first = process == 0
    path = directory / f"{name}.safetensors"
    with sharded.gathered():  # as where a callback saves
        save_weights(policy, path, here=first)
        one_of_it = sharded.plain_copy(first)
    kept = whole(policy.optimizer.state_dict(), first)
    found["states"] = [
        far(*pair) for pair in zip(states(plain.optimizer), states(policy.optimizer), strict=True)
    ]
    if first:
        found["copy"] = distance(plain, one_of_it)
        one_of_it.save_pretrained(directory / name, merged=True)
        with plain.backbone.exact(), torch.no_grad():
            found["logits"] = plain.backbone(*PROMPT).logits[0].tolist()
        alone = make_policy(name)
        load_weights(alone, path)
        load_whole(alone.optimizer, kept)
        step_alone(alone)
    distributed.barrier()

    # And back, into one that has taken another way meanwhile.
    load_weights(policy, path)
    other = make_policy(name)
    sharded_other = Sharded(other, mesh, other.optimizer)
    step_together(other, sharded_other, process)
    load_weights(other, path)
    load_whole(other.optimizer, deepcopy(plain.optimizer.state_dict()))
    step_alone(plain)
    step_together(other, sharded_other, process)
    found["resumed"] = distance(plain, other)
    if first:
        found["resumed_alone"] = distance(plain, alone)

    # Sharded only after some steps.
    late = make_policy(name)
    for _ in range(2):
        step_alone(late)
    step_together(late, Sharded(late, mesh, late.optimizer), process)
    found["late"] = distance(plain, late)
    found["trained"] = len(trained_weights(policy))
    return found


def main(directory: Path) -> None:
    """Examine all policies in two processes."""
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # PEFT's

    def work(process: int) -> None:
        distributed.init_process_group("gloo")
        found = {name: examine(name, process, directory) for name in MODELS}
        (directory / f"{process}.json").write_text(json.dumps(found))
        distributed.destroy_process_group()

    fork(PROCESSES, work)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
