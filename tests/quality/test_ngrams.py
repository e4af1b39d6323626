"""The n-grams of tests/quality/ngrams.py: by hand, as distributions, and against the loss that pretraining states."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainers.accelerator import start_accelerator
from trainers.config import CorpusConfig
from trainers.data.corpus import Blocks, Tokens, corpus_blocks
from trainers.data.records import SAMPLE
from trainers.data.vocabulary import corpus_tokenizer
from trainers.language_models import NextWord
from trainers.loop import held_out_loss

sys.path.append(str(Path(__file__).parent))  # where ngrams.py is
from ngrams import count, probabilities, read, target_nats

N_CTX = 32
A, B, C, D = range(4)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """The training and the held-out blocks of the sample, and the size of the vocabulary."""
    texts = ([str(SAMPLE / "corpus" / f"{name}.txt")] for name in ("train", "valid"))
    corpus = CorpusConfig("sample", *texts, vocab_size=300, cache=str(tmp_path_factory.mktemp("cache")))
    tokenizer = corpus_tokenizer(corpus, "bpe", N_CTX)
    blocks = [corpus_blocks(corpus, tokenizer, N_CTX, held_out) for held_out in (False, True)]
    return *blocks, len(tokenizer)


def distributions(models, contexts, n_vocab):
    """P(. | context) for packed contexts, one row each, by the model whose order is given."""
    order, packed = contexts
    every = (np.asarray(packed)[:, None] * n_vocab + np.arange(n_vocab)).reshape(-1)
    return probabilities(models[order], every, n_vocab).reshape(-1, n_vocab)


def test_kneser_ney_by_hand():
    ids = np.array([A, B, A, B, A, C, B], np.uint16)  # D is never seen
    models = count(read(Blocks(Tokens(ids, np.array([0, 7]), 0, Path("ids.bin")), 7), 4))
    # No count is 3, so 0.5 is taken from a count of 1 and 1 from one of 2. Two tokens stand before b, one before a and
    # c: 0.5 / 4, 1 / 4, 0.5 / 4, and what is left, 2 / 4, goes to four tokens alike.
    before = np.array([1 / 4, 3 / 8, 1 / 4, 1 / 8])
    # ab 2, ac 1: (2 - 1) / 3, (1 - 0.5) / 3, and 1.5 / 3 is left
    assert distributions(models, (2, [A]), 4)[0] == pytest.approx([0, 1 / 3, 1 / 6, 0] + before / 2)
    assert distributions(models, (2, [D]), 4)[0] == pytest.approx(before)
    # aba 2, of which 1 / 2 is left; below it ba follows one token, of which 0.5 / 1 is left
    assert probabilities(models[3], np.array([(A * 4 + B) * 4 + A]), 4) == pytest.approx(
        1 / 2 + (1 / 2 + before[A] / 2) / 2
    )


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_add_up_after_seen_and_unseen_contexts(sample, order):
    train, held_out, n_vocab = sample
    models, text = count(read(train, n_vocab)), read(held_out, n_vocab)
    contexts = np.unique(text.ngrams(np.flatnonzero(text.positions >= order), order) // n_vocab)
    seen = np.isin(contexts, models[order][-1].contexts)
    assert seen.any()
    assert order < 3 or not seen.all()
    found = distributions(models, (order, contexts), n_vocab)
    assert found.min() > 0
    assert found.sum(axis=1) == pytest.approx(1)


class Stated(torch.nn.Module):
    """A language model whose logits are the log-probabilities of an n-gram model."""

    def __init__(self, models, order, n_vocab):
        super().__init__()
        self.models, self.order, self.n_vocab = models, order, n_vocab
        self.embeddings = SimpleNamespace(weight=torch.eye(n_vocab))

    def base_model(self, input_ids, attention_mask):
        rows = [[self.after(row[: end + 1]) for end in range(len(row))] for row in input_ids.tolist()]
        return SimpleNamespace(last_hidden_state=torch.tensor(np.log(rows), dtype=torch.float32))

    def after(self, ids):
        used = min(len(ids) + 1, self.order)
        context = 0
        for token in ids[len(ids) - used + 1 :]:
            context = context * self.n_vocab + token
        return distributions(self.models, (used, [context]), self.n_vocab)[0]

    def get_output_embeddings(self):
        return self.embeddings


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_targets_are_those_of_pretraining_s_held_out_loss(sample, order, tmp_path):
    train, held_out, n_vocab = sample
    models = count(read(train, n_vocab))
    model, accelerator = NextWord(Stated(models, order, n_vocab)), start_accelerator("no", [], tmp_path)
    nats, n_targets = held_out_loss(accelerator, model, held_out, range(len(held_out)), pad_id=0, max_tokens=256)
    found = target_nats(models, read(held_out, n_vocab), order)
    assert len(found) == n_targets
    assert found.sum() == pytest.approx(nats, rel=1e-5)
