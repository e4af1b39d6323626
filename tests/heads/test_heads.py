"""The heads, and the auxiliary LM loss against a plain loop."""

import pytest
import torch
from accelerate.utils import set_seed
from torch.nn import functional

from heads.classification import ClassificationHead
from heads.language_model import sequence_lm_loss, tree_lm_loss
from heads.multiple_choice import MultipleChoiceHead
from heads.similarity import SimilarityHead
from heads.structures import STRUCTURES
from heads.table import HEADS

D = 16


def states(*shape, seed=1):
    return torch.randn(*shape, D, generator=torch.Generator().manual_seed(seed))


def present(n_examples, n_sequences):
    return torch.ones(n_examples, n_sequences, dtype=torch.int64)


def test_every_structure_has_a_head():
    assert HEADS.keys() == STRUCTURES.keys()


@pytest.mark.parametrize("n_examples", [1, 3])
@pytest.mark.parametrize(
    ("head", "n_sequences", "n_labels", "n_logits"),
    [
        (ClassificationHead, 1, 1, 1),
        (ClassificationHead, 1, 3, 3),
        (SimilarityHead, 2, 1, 1),
        (SimilarityHead, 2, 2, 2),
        (MultipleChoiceHead, 1, 4, 1),
        (MultipleChoiceHead, 2, 2, 2),
        (MultipleChoiceHead, 4, 4, 4),
    ],
)
def test_shapes(head, n_sequences, n_labels, n_logits, n_examples):
    logits = head(D, n_labels, 0.1)(states(n_examples, n_sequences), present(n_examples, n_sequences))
    assert logits.shape == (n_examples, n_logits)


@pytest.mark.parametrize("head", [ClassificationHead, SimilarityHead, MultipleChoiceHead])
def test_dropout_is_in_training_only(head):
    n_sequences = 1 if head is ClassificationHead else 2
    built = head(D, 2, 0.5)
    given = states(4, n_sequences), present(4, n_sequences)
    built.train()
    assert not torch.equal(built(*given), built(*given))
    built.eval()
    assert torch.equal(built(*given), built(*given))


def test_classification_is_linear_in_the_one_state():
    head, state = ClassificationHead(D, 3, 0.1).eval(), states(2, 1)
    expected = state[:, 0] @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(state, present(2, 1)), expected)


def test_similarity_adds_the_two_states():
    head, state = SimilarityHead(D, 3, 0.1).eval(), states(2, 2)
    expected = (state[:, 0] + state[:, 1]) @ head.linear.weight.T + head.linear.bias
    torch.testing.assert_close(head(state, present(2, 2)), expected)


@pytest.mark.parametrize("training", [True, False])
def test_similarity_knows_no_order(training):
    head, state = SimilarityHead(D, 3, 0.5).train(training), states(5, 2)
    set_seed(0)
    one = head(state, present(5, 2))
    set_seed(0)
    other = head(state.flip(1), present(5, 2))
    assert torch.equal(one, other)


@pytest.mark.parametrize(("head", "n_sequences"), [(ClassificationHead, 2), (SimilarityHead, 1), (SimilarityHead, 3)])
def test_a_wrong_number_of_sequences_is_said(head, n_sequences):
    with pytest.raises(ValueError, match=f"{head.__name__} reads .*, got {n_sequences}"):
        head(D, 2, 0.1)(states(3, n_sequences), present(3, n_sequences))


def test_the_candidates_share_one_dropout_mask():
    head = MultipleChoiceHead(D, 2, 0.5).train()
    logits = head(states(50, 1).expand(50, 4, D), present(50, 4))
    assert torch.equal(logits, logits[:, :1].expand(50, 4))
    # and the examples do not
    same = head(states(1, 1).expand(50, 4, D), present(50, 4))[:, 0]
    assert len(same.unique()) > 10


def test_dropout_keeps_the_expected_score():
    head, state = MultipleChoiceHead(D, 2, 0.5), states(1, 2)
    expected = head.eval()(state, present(1, 2))
    drawn = head.train()(state.expand(20_000, 2, D), present(20_000, 2)).mean(0, keepdim=True)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=0.05)


def test_an_absent_candidate_is_minus_infinity():
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    logits = MultipleChoiceHead(D, 3, 0.1).eval()(states(2, 3), mask)
    assert torch.isneginf(logits).tolist() == [[False, False, False], [False, True, True]]
    assert logits.softmax(-1)[1].tolist() == [1, 0, 0]


def test_an_absent_candidate_has_no_gradient():
    head, state = MultipleChoiceHead(D, 3, 0.1).eval(), states(2, 3).requires_grad_()
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    functional.cross_entropy(head(state, mask), torch.tensor([2, 0])).backward()
    assert state.grad.isfinite().all()
    assert (state.grad[1, 2] == 0).all()
    assert (state.grad[1, :2] != 0).all()


# the auxiliary LM loss

LENGTHS = [5, 1, 8, 2]
V = 11


def lm_batch(side):
    """Hidden states, ids, mask, softmax weights; what stands at the padding is loud, so that a leak shows."""
    generator = torch.Generator().manual_seed(2)
    hidden, weight = states(len(LENGTHS), 8, seed=3), torch.randn(V, D, generator=generator)
    ids = torch.randint(0, V, (len(LENGTHS), 8), generator=generator)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(LENGTHS):
        mask[row, slice(0, length) if side == "right" else slice(8 - length, 8)] = 1
    return torch.where(mask[..., None] == 1, hidden, 1e4), ids, mask, weight


def naive_lm_loss(hidden, ids, mask, weight):
    """Each sequence by itself: the mean over its tokens 1 .. n-1 of -log p, from logits at every position."""
    losses = []
    for h, i, m in zip(hidden, ids, mask, strict=True):
        real, tokens = h[m == 1].double(), i[m == 1].tolist()
        logp = (real @ weight.double().T).log_softmax(-1)
        each = [-logp[t - 1, tokens[t]].item() for t in range(1, len(tokens))]
        losses.append(sum(each) / len(each) if each else 0.0)
    return torch.tensor(losses)


@pytest.mark.parametrize("side", ["right", "left"])
def test_lm_loss_is_that_of_a_loop_over_sequences(side):
    batch = lm_batch(side)
    losses = sequence_lm_loss(*batch)
    assert losses[1] == 0
    assert (losses[[0, 2, 3]] > 0).all()
    torch.testing.assert_close(losses, naive_lm_loss(*batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_has_no_gradient(side):
    hidden, ids, mask, weight = lm_batch(side)
    hidden = hidden.requires_grad_()
    sequence_lm_loss(hidden, ids, mask, weight).sum().backward()
    assert hidden.grad.isfinite().all()
    assert (hidden.grad[mask == 0] == 0).all()
    read = hidden.grad.abs().sum(-1) > 0
    assert read.sum(-1).tolist() == [max(length - 1, 0) for length in LENGTHS]  # the last token predicts nothing


def test_delimiter_and_extract_are_targets_and_start_is_not():
    # [start] 4 [delimiter] 5 [extract], with a softmax that is uniform but for one token
    ids, mask = torch.tensor([[8, 4, 9, 5, 10, 0, 0]]), torch.tensor([[1, 1, 1, 1, 1, 0, 0]])
    hidden = torch.zeros(1, 7, D)
    hidden[..., 0] = 1

    def loss(raised):
        weight = torch.zeros(V, D)
        weight[raised, 0] = 50.0
        return sequence_lm_loss(hidden, ids, mask, weight).item()

    # a token that is a target costs 0 at its place and 50 at the three others; any other costs 50 at all four
    assert [round(loss(token), 3) for token in (4, 9, 5, 10)] == [37.5] * 4
    assert [round(loss(token), 3) for token in (8, 0, 7)] == [50.0] * 3


@pytest.mark.parametrize(
    ("branch", "sequences"),
    [
        ([0, 0, 0, 1, 1, 2, 3, 3], [[0, 1, 2, 3, 4], [0, 1, 2, 5], [0, 1, 2, 6, 7]]),
        ([-1, -1, 0, 1, 2, 2, 3, 3], [[2, 3], [2, 4, 5], [2, 6, 7]]),
        ([0, 0, 1, 3, 3, -1, -1, -1], [[0, 1, 2], [0, 1], [0, 1, 3, 4]]),  # nothing is left of the second
        ([1, 1, 2, 2, 3, -1, -1, -1], [[0, 1], [2, 3], [4]]),  # nothing in common
    ],
)
def test_a_trees_lm_losses_are_those_of_its_sequences(branch, sequences):
    generator = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(*shape, D, generator=generator).requires_grad_() for shape in ((1, 8), (V,)))
    ids = torch.randint(V, (1, 8), generator=generator)
    present = torch.tensor([[1, 1, 1, 0]])
    found = tree_lm_loss(hidden, ids, torch.tensor([branch]), present, weight)
    expected = [sequence_lm_loss(hidden[:, at], ids[:, at], torch.ones(1, len(at)), weight) for at in sequences]
    torch.testing.assert_close(found, torch.cat([*expected, torch.zeros(1)])[None])
    share = torch.tensor([1.0, 0.5, 2.0])  # sequences may weigh differently
    grads = [
        torch.autograd.grad((losses * share).sum(), (hidden, weight)) for losses in (found[0, :3], torch.cat(expected))
    ]
    torch.testing.assert_close(grads[0], grads[1])
