r"""What GPUs would do, on paper: the counts of `cost`, with the numbers of a data sheet.

Nothing here was measured on a GPU. What Python takes is taken over from the machine on which the
cost model was fitted; the rest is what makers promise, or what others have measured, times shares
of it that are assumed and stated.

A decode step is as long as the longer of the two: the host's Python, which launches the kernels,
and the GPU's work, which is the longer of products and reading weights and cache. So is a pass of
an update. Of exchange as much is hidden as a backward pass lasts, where gradients are summed up,
and as a whole pass lasts where weights are sharded. That is assumed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log2

from scale.cost import Machine, rollout_terms, update_terms
from scale.shape import Load, Shape
from scale.traffic import FLOAT, Traffic, replicated, sharded

HALF = 2
"""Bytes of what layers compute in, bfloat16: of the copy of the weights to write with, and of the
cache."""
LOGIT_PASSES = 12
"""How often logits are read or written, float32, to draw from them or to score them. Assumed."""
STEP_PASSES = 12
"""How often a step of the optimizer reads or writes a number for each parameter: Adam reads four
and writes three, clipping reads twice and writes once, gradients are set to zero and added to."""
CAST_BYTES = 6
"""Bytes a parameter to make the copy in bfloat16 that a pass computes with."""


@dataclass(frozen=True)
class Accelerator:
    """A GPU, and how much of its promises is kept.

    Attributes:
        name: Of it.
        operations: A second, of dense bfloat16 products.
        bandwidth: Bytes a second of its memory.
        memory: Bytes.
        share_of_operations: That large products reach.
        share_of_bandwidth: That reading reaches.
    """

    name: str
    operations: float
    bandwidth: float
    memory: float
    share_of_operations: float
    share_of_bandwidth: float

    def computes(self, operations: float) -> float:
        """Seconds of products."""
        return operations / (self.operations * self.share_of_operations)

    def moves(self, size: float) -> float:
        """Seconds of reading or writing bytes of its memory."""
        return size / (self.bandwidth * self.share_of_bandwidth)


@dataclass(frozen=True)
class Network:
    """What connects processes.

    Attributes:
        name: Of it.
        bandwidth: Bytes a second that each process sends while all of them do.
        latency: Seconds of a message, for each doubling of processes.
    """

    name: str
    bandwidth: float
    latency: float


H100 = Accelerator("H100 SXM", 989e12, 3.35e12, 80e9, 0.4, 0.867)
NVLINK = Network("NVLink", 380e9, 10e-6)
INFINIBAND = Network("8 x 400 Gb/s InfiniBand a node", 180e9, 20e-6)
ETHERNET = Network("100 Gb/s Ethernet a node", 11e9, 50e-6)
"""A ring through nodes crosses the wire of each once, so that all eight of a node share it."""

MODELS = {
    "135 M": Shape(30, 576, 1_536, 49_152, cached=192, tied=True),
    "1.2 B": Shape(16, 2_048, 8_192, 128_256, cached=512, tied=True),
    "8 B": Shape(32, 4_096, 14_336, 128_256, cached=1_024),
}
"""SmolLM2-135M, Llama 3.2 1B, Llama 3.1 8B, by their published configurations."""


@dataclass(frozen=True)
class Plan:
    """How a model is trained.

    Attributes:
        name: In short.
        load: Of each GPU.
        shards: Whether weights are sharded.
        lora: Rank of adapters; None to train all.
    """

    name: str
    load: Load
    shards: bool = False
    lora: int | None = None


AS_IT_IS = Load(rows=64, prompt=128, new=256, mini_batches=32, epochs=4)
"""64 rows, and TokenPPO's own mini-batches of 512 tokens and 4 epochs."""
LARGER = replace(AS_IT_IS, mini_batches=4)
"""Mini-batches of 4,096 tokens."""
MORE_ROWS = replace(AS_IT_IS, rows=256, mini_batches=4)
"""Four times the rows, mini-batches of 16,384 tokens, read 8,192 at a time."""

PLANS = (
    Plan("DDP, mini-batches of 512", AS_IT_IS),
    Plan("DDP, of 4,096", LARGER),
    Plan("DDP, of 16,384, 256 rows", MORE_ROWS),
    Plan("LoRA 16, of 512", AS_IT_IS, lora=16),
    Plan("LoRA 16, of 4,096", LARGER, lora=16),
    Plan("FSDP2, of 512", AS_IT_IS, shards=True),
    Plan("FSDP2, of 4,096", LARGER, shards=True),
    Plan("FSDP2, of 16,384, 256 rows", MORE_ROWS, shards=True),
)


@dataclass(frozen=True)
class Estimate:
    """Seconds of an iteration by what they go into, computed.

    Attributes:
        decode: Decode steps.
        decode_waits_for: What is waited for in them: Python, weights, cache or products.
        environment: Environment, reward that costs nothing, buffer.
        prompts: Reading prompts.
        products: Products of an update.
        memory: Passes over parameters and logits in an update.
        host: What the host takes longer than the GPU in an update.
        exchange: Exchange that nothing hides.
        hidden: Exchange that passes hide.
        traffic: What each process sends.
        state: Bytes that weights, gradients, the optimizer and the cache take on each GPU.
        tokens: Written by all GPUs.
    """

    decode: float
    decode_waits_for: str
    environment: float
    prompts: float
    products: float
    memory: float
    host: float
    exchange: float
    hidden: float
    traffic: Traffic
    state: float
    tokens: float

    @property
    def rollout(self) -> float:
        """Seconds of a rollout."""
        return self.decode + self.environment + self.prompts

    @property
    def update(self) -> float:
        """Seconds of an update, without exchange."""
        return self.products + self.memory + self.host

    @property
    def total(self) -> float:
        """Seconds of an iteration."""
        return self.rollout + self.update + self.exchange

    @property
    def bottleneck(self) -> str:
        """What takes longest."""
        parts = {
            f"decode: {self.decode_waits_for}": self.decode,
            "environment": self.environment,
            "prompts": self.prompts,
            "update: products": self.products,
            "update: optimizer, logits": self.memory,
            "update: Python": self.host,
            "exchange": self.exchange,
        }
        return max(parts, key=lambda name: parts[name])


def adapters(shape: Shape, rank: int) -> int:
    """Numbers that are trained with adapters, PEFT's own: of queries and values; and the critic."""
    of_a_layer = 2 * shape.width + shape.width + shape.cache_width
    return shape.layers * rank * of_a_layer + shape.width + 1


def estimate(
    shape: Shape, plan: Plan, gpus: int, gpu: Accelerator, network: Network, machine: Machine
) -> Estimate:
    """What an iteration would take.

    Args:
        shape: Of the model.
        plan: How it is trained.
        gpus: How many.
        gpu: Each of them.
        network: What connects them.
        machine: What Python takes.
    """
    load, trained = plan.load, shape.parameters
    if plan.lora:
        trained = adapters(shape, plan.lora)
    counts, of_update = rollout_terms(shape, load), update_terms(shape, load)
    host = sum(machine.rollout[name] * counts[name] for name in ("layers", "steps"))
    # Weights and cache are counted in float32.
    weights, cache = (gpu.moves(counts[name] * HALF / FLOAT) for name in ("weights", "cache"))
    at_work = {"products": gpu.computes(counts["products"]), "memory": weights + cache}
    on_gpu = max(at_work.values()) + gpu.moves(LOGIT_PASSES * counts["logits"])
    slowest = max(at_work, key=lambda name: at_work[name])
    if slowest == "memory":
        slowest = "weights" if weights > cache else "cache"

    passes = load.steps * load.pieces
    # Of a product, gradients for weights that are not trained are not made.
    part = 2 / 3 if plan.lora else 1.0
    products = part * gpu.computes(of_update["products"] + of_update["head"])
    products += gpu.computes(of_update["attention"])
    held = trained / gpus if plan.shards else trained
    memory = gpu.moves(
        STEP_PASSES * FLOAT * load.steps * held
        + LOGIT_PASSES * of_update["logits"]
        + CAST_BYTES * passes * shape.parameters
    )
    python = sum(machine.update[name] * of_update[name] for name in ("layers", "mini-batches"))

    if plan.shards:
        traffic = sharded(shape, load, gpus, gloo=False)
    else:
        traffic = replicated(shape, load, gpus, trained)
    sent = (traffic.weights + traffic.gradients) / network.bandwidth
    # In a mini-batch of several pieces gradients are sent with the last, unless it is sharded.
    hides = products if plan.shards else 2 / 3 * products / load.pieces
    hidden = min(sent, hides) if gpus > 1 else 0.0
    waiting = traffic.messages * log2(gpus) * network.latency if gpus > 1 else 0.0
    return Estimate(
        decode=max(host, on_gpu),
        decode_waits_for="Python" if host > on_gpu else slowest,
        environment=machine.rollout["tokens"] * counts["tokens"],
        prompts=gpu.computes(counts["prompts"]),
        products=products,
        memory=memory,
        host=max(python - products - memory, 0.0),
        exchange=sent - hidden + waiting,
        hidden=hidden,
        traffic=traffic,
        state=state(shape, plan, gpus, trained),
        tokens=gpus * load.written,
    )


def state(shape: Shape, plan: Plan, gpus: int, trained: int) -> float:
    """Bytes on each GPU that an iteration needs at its fullest, without activations.

    Weights are float32, and so are gradients, Adam's two numbers, and the buckets in which
    gradients are summed up. To write, weights are whole, with a copy in bfloat16 beside them.

    Args:
        shape: Of the model.
        plan: How it is trained.
        gpus: How many.
        trained: Numbers that are trained.
    """
    load = plan.load
    cached = 2 * HALF * shape.layers * shape.cache_width
    cache = load.rows * (load.prompt + load.new) * cached
    to_write = (FLOAT + HALF) * shape.parameters + cache
    of_trained = FLOAT * trained * (3 if gpus == 1 or plan.shards else 4)
    if plan.shards:
        return to_write + (FLOAT * shape.parameters + of_trained) / gpus
    return to_write + of_trained
