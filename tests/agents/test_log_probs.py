import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from agents.log_probs import LOGITS_BUDGET, log_probs_and_entropy
from agents.sampling import Sampling

N, WIDTH, VOCABULARY = 13, 4, 11

BUDGETS = [1, VOCABULARY, 3 * VOCABULARY, 3 * VOCABULARY + 5, N * VOCABULARY - 1, N * VOCABULARY]


def linear_head(dtype=torch.float32, width=WIDTH, n=N, scale=2.0):
    """Random hidden states, weight, bias and tokens."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        scale * torch.randn(*shape, generator=generator, dtype=dtype)
        for shape in ((n, width), (VOCABULARY, width), (VOCABULARY,))
    )
    return hidden, weight, bias, torch.randint(VOCABULARY, (n,), generator=generator)


def scored(hidden, weight, bias, tokens, budget=LOGITS_BUDGET, sampling=None):
    def to_logits(hidden, tokens):
        logits = functional.linear(hidden, weight, bias)
        return logits if sampling is None else sampling.warp(logits, tokens)

    return log_probs_and_entropy(to_logits, hidden, tokens, VOCABULARY, budget)


def plainly_scored(hidden, weight, bias, tokens):
    distribution = torch.distributions.Categorical(logits=functional.linear(hidden, weight, bias))
    return distribution.log_prob(tokens), distribution.entropy()


def total(outputs, use, upstream):
    return sum((outputs[i] * upstream[i]).sum() for i in use)


@pytest.mark.parametrize("budget", [*BUDGETS, LOGITS_BUDGET])
@pytest.mark.parametrize("use", [(0,), (1,), (0, 1)], ids=["log-prob", "entropy", "both"])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-4), (torch.float64, 1e-12)])
def test_values_and_gradients_are_those_of_torch(use, budget, dtype, atol):
    *inputs, tokens = linear_head(dtype)
    upstream = torch.randn(2, N, generator=torch.Generator().manual_seed(1), dtype=dtype)
    results = []
    for score in (plainly_scored, lambda *arguments: scored(*arguments, budget)):
        leaves = [x.clone().requires_grad_() for x in inputs]
        outputs = score(*leaves, tokens)
        assert all(output.shape == (N,) for output in outputs)
        gradients = torch.autograd.grad(total(outputs, use, upstream), leaves)
        results.append((outputs, gradients))
    torch.testing.assert_close(*results, atol=atol, rtol=0)
    assert all(gradient.abs().max() > 0.1 for gradient in results[0][1])


@pytest.mark.parametrize("budget", [VOCABULARY, LOGITS_BUDGET])
@pytest.mark.parametrize("trained", [(0,), (1, 2), ()], ids=["trunk", "head", "nothing"])
def test_what_is_frozen_gets_no_gradient(trained, budget):
    *inputs, tokens = linear_head()
    for i in trained:
        inputs[i].requires_grad_()
    outputs = scored(*inputs, tokens, budget)
    expected = plainly_scored(*inputs, tokens)
    torch.testing.assert_close(outputs, expected, atol=1e-5, rtol=1e-5)
    assert [output.requires_grad for output in outputs] == [bool(trained)] * 2
    if trained:
        leaves = [inputs[i] for i in trained]
        gradients = [
            torch.autograd.grad(total(x, (0, 1), torch.ones(2, N)), leaves)
            for x in (outputs, expected)
        ]
        torch.testing.assert_close(*gradients, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("budget", [VOCABULARY, LOGITS_BUDGET])
def test_without_gradients_nothing_is_kept(budget):
    *inputs, tokens = linear_head()
    leaves = [x.requires_grad_() for x in inputs]
    with torch.no_grad():
        outputs = scored(*leaves, tokens, budget)
    assert not any(output.requires_grad for output in outputs)
    torch.testing.assert_close(outputs, plainly_scored(*leaves, tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("budget", [VOCABULARY, LOGITS_BUDGET])
@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.7, top_k=4),
        Sampling(top_p=0.8),
        Sampling(temperature=0.7, allowed=(1, 2, 5, 9)),  # some tokens are others
    ],
)
def test_gradients_are_those_of_finite_differences(sampling, budget):
    *inputs, tokens = linear_head(torch.float64, scale=0.5)
    leaves = [x.requires_grad_() for x in inputs]
    assert torch.autograd.gradcheck(lambda *x: scored(*x, tokens, budget, sampling), leaves)


@pytest.mark.parametrize("use", [(0,), (1,), (0, 1)], ids=["log-prob", "entropy", "both"])
def test_tokens_that_are_never_drawn_have_no_gradient(use):
    logits = linear_head()[0] @ linear_head()[1].T
    masked = torch.arange(VOCABULARY) % 3 == torch.arange(N)[:, None] % 3
    tokens = (torch.arange(N) + 1) % 3  # none of them masked
    leaf = logits.clone().requires_grad_()

    def to_logits(hidden, tokens):
        return hidden.masked_fill(masked, torch.finfo(hidden.dtype).min)

    seen = []
    leaf.register_hook(seen.append)
    outputs = log_probs_and_entropy(to_logits, leaf, tokens, VOCABULARY)
    masked_logits = to_logits(leaf, tokens)
    whole = masked_logits.detach().requires_grad_()
    of_whole = log_probs_and_entropy(lambda hidden, _: hidden, whole, tokens, VOCABULARY)
    expected = [
        torch.distributions.Categorical(logits=row[~mask])
        for row, mask in zip(logits, masked, strict=True)
    ]
    torch.testing.assert_close(
        outputs[1], torch.stack([x.entropy() for x in expected]), atol=1e-5, rtol=1e-5
    )
    upstream = torch.ones(2, N)
    for x, y in ((leaf, outputs), (whole, of_whole)):
        (gradient,) = torch.autograd.grad(total(y, use, upstream), x)
        assert gradient.isfinite().all()
        assert (gradient[masked] == 0).all()
        assert (gradient[~masked] != 0).any()


def test_a_token_that_was_masked_is_all_but_impossible():
    logits = torch.tensor([[1.0, torch.finfo().min]], requires_grad=True)
    log_prob, entropy = log_probs_and_entropy(lambda x, _: x, logits, torch.tensor([1]), 2)
    assert log_prob.isfinite().all()
    assert log_prob.item() < -1e38
    assert entropy.item() == pytest.approx(0, abs=1e-6)
    assert torch.autograd.grad(log_prob.sum() + entropy.sum(), logits)[0].isfinite().all()


@pytest.mark.parametrize(
    "row",
    [
        [1e4, -1e4, 0.0],
        [1e4, 1e4, 1e4],
        [-1e4, -1e4, -1e4],
        [-1e4, 1e4, 1e4],
        [0.0, 0.0, -1e4],
    ],
)
def test_extreme_logits_stay_finite(row):
    for token in range(3):
        logits = torch.tensor([row], requires_grad=True)
        exact = torch.tensor([row], dtype=torch.float64, requires_grad=True)
        outputs, expected = (
            log_probs_and_entropy(lambda x, _: x, x, torch.tensor([token]), 3)
            for x in (logits, exact)
        )
        gradients, expected_gradients = (
            torch.autograd.grad(y[0].sum() + y[1].sum(), x)[0]
            for x, y in ((logits, outputs), (exact, expected))
        )
        # float32 tells numbers of this size apart by 0.001.
        close = {"atol": 4e-3, "rtol": 1e-6, "check_dtype": False}
        torch.testing.assert_close(outputs, expected, **close)
        torch.testing.assert_close(gradients, expected_gradients, **close)
        assert gradients.isfinite().all()


class LogitsMeter(TorchDispatchMode):
    """Watches every float tensor with a column for each token.

    Attributes:
        largest: Numbers in the largest of them.
        most: Numbers in all that were there at the same time.
    """

    def __init__(self, vocabulary):
        super().__init__()
        self.largest = self.most = 0
        self._vocabulary = vocabulary
        self._alive = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if (
                isinstance(tensor, torch.Tensor)
                and tensor.is_floating_point()
                and tensor.ndim
                and tensor.shape[-1] == self._vocabulary
            ):
                self.largest = max(self.largest, tensor.numel())
                storage = tensor.untyped_storage()
                self._alive[storage._cdata] = StorageWeakRef(storage), tensor.numel()
        self._alive = {k: v for k, v in self._alive.items() if not v[0].expired()}
        self.most = max(self.most, sum(numel for _, numel in self._alive.values()))
        return out


def metered(budget, rows, vocabulary, backward=True):
    # Of a width of 1, so that the head's own weight has no more numbers than a token has logits.
    head = nn.Linear(1, vocabulary)
    hidden = torch.randn(rows, 1, requires_grad=True)
    tokens = torch.randint(vocabulary, (rows,))
    with LogitsMeter(vocabulary) as meter:
        outputs = log_probs_and_entropy(
            lambda hidden, _: head(hidden), hidden, tokens, vocabulary, budget
        )
        if backward:
            sum(outputs).sum().backward()
    assert not backward or head.weight.grad.abs().sum() > 0
    return meter


@pytest.mark.parametrize("tokens_at_a_time", [1, 2, 7, 50])
def test_no_more_logits_than_the_budget_are_made_at_a_time(tokens_at_a_time):
    rows, vocabulary = 50, 101
    for budget in (tokens_at_a_time * vocabulary, tokens_at_a_time * vocabulary + 3):
        meter = metered(budget, rows, vocabulary)
        assert meter.largest == tokens_at_a_time * vocabulary
        # Logits, probabilities and the gradient, and what it is made of; the head's weight, bias
        # and their gradients.
        assert meter.most <= 4 * budget + 8 * vocabulary


def test_logits_of_one_token_are_made_whatever_the_budget():
    assert metered(3, 50, 101).largest == 101


def test_logits_do_not_wait_for_the_backward_pass():
    assert metered(101, 50, 101, backward=False).most <= 8 * 101
    assert metered(50 * 101, 50, 101).most >= 2 * 50 * 101, "the meter sees what is kept"


def test_no_tokens_at_all():
    *inputs, tokens = linear_head(n=0)
    assert [output.shape for output in scored(*inputs, tokens)] == [(0,), (0,)]
