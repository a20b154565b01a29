"""The cost model's functions, the bytes by formula and as the kernel counts them, and the guide."""

from __future__ import annotations

import math
import os
import socket
from dataclasses import replace
from pathlib import Path

import pytest
from scale import cost, paper
from scale.cases import ALONE, APART, FOURS, PAIRS, model
from scale.cost import Machine, exchange_terms, fitted, rollout_terms, seconds, update_terms
from scale.fit import fit, is_plain, predict
from scale.guide import computed, filled
from scale.records import load as load_records
from scale.shape import Load, Shape
from scale.sockets import bytes_sent
from scale.traffic import FLOAT, all_gather, all_reduce, gather, replicated, sharded

ROOT = Path(__file__).parents[2]
SHAPE = Shape(4, 128, 344, 512)
LOAD = Load(rows=16, prompt=16, new=32, mini_batches=4)
MACHINE = Machine(
    dict.fromkeys(rollout_terms(SHAPE, LOAD), 1e-9),
    dict.fromkeys(update_terms(SHAPE, LOAD), 1e-9),
    {"messages": 1e-4, "bytes": 1e-9},
    {1: (1.0, 1.0), 2: (1.1, 1.2)},
)


def test_a_shape_counts_what_a_model_has() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    for shared, tied in ((4, False), (2, True)):
        config = LlamaConfig(
            vocab_size=512,
            hidden_size=128,
            intermediate_size=344,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=shared,
            tie_word_embeddings=tied,
        )
        shape = replace(SHAPE, cached=32 * shared, tied=tied)
        critic = 128 + 1
        counted = sum(p.numel() for p in LlamaForCausalLM(config).parameters())
        assert shape.parameters == counted + critic


def test_published_models_have_the_size_that_they_are_named_for() -> None:
    sizes = {name: shape.parameters for name, shape in paper.MODELS.items()}
    expected = {"135 M": 134.5e6, "1.2 B": 1.236e9, "8 B": 8.03e9}
    assert sizes == {name: pytest.approx(size, rel=0.001) for name, size in expected.items()}


def test_adapters_are_counted() -> None:
    from agents.backbone import Backbone

    workload = model(2, 64)
    adapted = Backbone(workload.model(), 512, 48, lora={"r": 4})
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    critic = 64 + 1
    assert paper.adapters(Shape(2, 64, workload.feed_forward, 512), 4) == trained + critic


def test_one_process_sends_nothing() -> None:
    assert all_reduce(1e9, 1) == all_gather(1e9, 1) == gather("something", 1) == 0
    assert replicated(SHAPE, LOAD, 1).sent == 0
    assert exchange_terms(replicated(SHAPE, LOAD, 1).messages, 0.0, 1) == {
        "messages": 0,
        "bytes": 0,
    }


def test_bytes_of_a_ring() -> None:
    assert all_reduce(100.0, 2) == 100
    assert all_reduce(100.0, 4) == 150
    assert all_gather(100.0, 4) == 75
    size = FLOAT * SHAPE.parameters
    assert replicated(SHAPE, LOAD, 4).gradients == LOAD.steps * 1.5 * size
    assert replicated(SHAPE, replace(LOAD, epochs=3), 4).gradients == 12 * 1.5 * size
    assert replicated(SHAPE, LOAD, 4, trained=100).gradients == LOAD.steps * 1.5 * 400


def test_what_is_sharded_is_sent_in_parts() -> None:
    size, layers = FLOAT * SHAPE.parameters, FLOAT * SHAPE.in_layers
    traffic = sharded(SHAPE, LOAD, 2, gloo=False)
    assert traffic.weights == (size + LOAD.steps * (size + layers)) / 2
    assert traffic.gradients == LOAD.steps * size / 2
    assert sharded(SHAPE, LOAD, 2, gloo=True).gradients == 2 * traffic.gradients
    longer = replace(LOAD, rows=1_024, mini_batches=1)
    assert longer.pieces == 6
    assert sharded(SHAPE, longer, 2, gloo=False).gradients == 6 * size / 2
    assert replicated(SHAPE, longer, 2).gradients == size


def test_counts_are_of_the_right_unit() -> None:
    """Twice of what a term counts is twice the term, and of what it does not, is not."""
    twice = replace(LOAD, rows=2 * LOAD.rows)
    before, after = rollout_terms(SHAPE, LOAD), rollout_terms(SHAPE, twice)
    by_rows = {name for name in before if after[name] == 2 * before[name]}
    assert before.keys() - by_rows == {"weights", "layers", "steps"}
    before, after = update_terms(SHAPE, LOAD), update_terms(SHAPE, twice)
    by_rows = {name for name in before if after[name] == 2 * before[name]}
    assert before.keys() - by_rows == {"parameters", "layers", "mini-batches"}
    again = update_terms(SHAPE, replace(LOAD, epochs=2))
    assert again == {name: 2 * count for name, count in before.items()}


def test_operations_are_those_of_the_arithmetic() -> None:
    """The same count as `speed.hardware`, which was written for another purpose."""
    from speed.hardware import operations

    workload = model(4, 128, feed_forward=344)
    last = workload.prompt + workload.new - 1
    terms = update_terms(SHAPE, LOAD)
    counted = terms["products"] + terms["attention"] + terms["head"]
    # Attention counts half a square here, and each pair there, a token and itself among them.
    assert counted == pytest.approx(3 * operations(workload, 0, last, workload.new), rel=0.01)


def test_logits_that_are_too_many_are_made_twice() -> None:
    wide = replace(SHAPE, vocabulary=cost.CHUNK // LOAD.written * LOAD.mini_batches + 1)
    plain = 6 * LOAD.written * wide.head
    assert update_terms(wide, LOAD)["head"] == pytest.approx(plain * 4 / 3)
    assert update_terms(SHAPE, LOAD)["head"] == 6 * LOAD.written * SHAPE.head


def test_a_fit_finds_what_made_the_figures() -> None:
    true = dict.fromkeys(rollout_terms(SHAPE, LOAD), 0.0)
    true |= {"prompts": 2e-11, "weights": 1e-10, "layers": 1e-4, "tokens": 3e-6}
    counts = [rollout_terms(one.shape, one.load) for one in ALONE]
    found = fitted(counts, [seconds(one, true) for one in counts])
    for one in APART:
        terms = rollout_terms(one.shape, one.load)
        assert seconds(terms, found) == pytest.approx(seconds(terms, true), rel=1e-4)
    assert min(found.values()) >= 0
    assert found["layers"] == pytest.approx(1e-4, rel=1e-3)


def test_a_fit_weighs_errors_by_what_was_measured() -> None:
    counts = [{"a": 1.0}, {"a": 1.0}]
    assert fitted(counts, [1.0, 3.0])["a"] == pytest.approx((1 + 1 / 3) / (1 + 1 / 9))


def test_no_case_is_both_fitted_and_held_out() -> None:
    shown = {
        replace(one, processes=1, together=True)
        for one in [*ALONE, *PAIRS, *FOURS]
        if not one.held_out
    }
    assert shown == set(ALONE) & shown
    assert all(one.held_out for one in APART)
    assert not {replace(one, held_out=False) for one in APART} & set(ALONE)


def test_prediction_of_one_process_has_no_exchange() -> None:
    rollout, update, exchange = MACHINE.predict(SHAPE, LOAD, 1, 0.0, 0.0)
    assert exchange == 0
    of_two = MACHINE.predict(SHAPE, LOAD, 2, 10.0, 1e6)
    assert of_two == (1.1 * rollout, pytest.approx(1.2 * update + 2e-3), pytest.approx(2e-3))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="reads /proc")
def test_the_kernel_counts_what_is_sent() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
        server.accept()[0] as other,
    ):
        before = bytes_sent()
        one.sendall(b"x" * 1_000)
        other.sendall(b"x" * 20)
        assert bytes_sent() - before == 1_020


def test_estimates_keep_their_limits() -> None:
    shape = paper.MODELS["1.2 B"]
    plans = {plan.name: plan for plan in paper.PLANS}

    def of(name: str, gpus: int) -> paper.Estimate:
        return paper.estimate(shape, plans[name], gpus, paper.H100, paper.INFINIBAND, MACHINE)

    alone, many = of("DDP, mini-batches of 512", 1), of("DDP, mini-batches of 512", 64)
    assert alone.exchange == alone.hidden == 0
    assert (many.rollout, many.update) == (alone.rollout, alone.update)
    assert many.exchange > of("DDP, of 4,096", 64).exchange > 0
    assert of("LoRA 16, of 512", 64).traffic.sent < 0.01 * many.traffic.sent
    assert of("FSDP2, of 512", 64).state < of("FSDP2, of 512", 8).state < many.state
    share = paper.H100.share_of_operations * paper.H100.operations
    assert math.isclose(alone.products, _operations(shape, plans) / share)


def _operations(shape: Shape, plans: dict[str, paper.Plan]) -> float:
    terms = update_terms(shape, plans["DDP, mini-batches of 512"].load)
    return sum(terms[name] for name in ("products", "attention", "head"))


def test_the_guide_says_what_the_model_says() -> None:
    page = (ROOT / ".docs/pages/guides/scaling.md").read_text(encoding="utf-8")
    _, records = load_records(ROOT / "benchmarks/results/scaling.json")
    assert filled(page, computed(fit(records))) == page, "run benchmarks/scaling.py --paper"


def test_what_was_measured_agrees_with_formula_and_model() -> None:
    _, records = load_records(ROOT / "benchmarks/results/scaling.json")
    sent = [one for one in records if one.case.processes > 1 and one.case.together]
    assert len(sent) > 10
    for one in sent:
        assert one.traffic.sent == pytest.approx(one.sent, rel=0.03), one.case.name
    machine = fit(records)
    held_out = [one for one in records if one.case.held_out and is_plain(one.case)]
    errors = [abs(predict(machine, one).errors[2]) for one in held_out]
    assert sum(error <= 0.2 for error in errors) >= 0.8 * len(errors)
