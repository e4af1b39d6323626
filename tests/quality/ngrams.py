"""Perplexity of n-grams on the text that a pretrained model is scored on: what the last one or two tokens tell of it.

    python tests/quality/ngrams.py --tokenizer RUN/model --files books.txt.xz --valid-files held_out.txt.xz

They are counted on the tokens that recipes/pretrain.py trains on, in the same blocks, and score the same targets. The
estimate is interpolated Kneser-Ney with three discounts (Chen and Goodman 1999, modified Kneser-Ney) in every order,
above a uniform distribution over the vocabulary.
"""

import argparse
from dataclasses import dataclass

import numpy as np
from transformers import AutoTokenizer

from heads.errors import InputError
from trainers.config.corpus import CorpusConfig
from trainers.data.corpus import Blocks, corpus_blocks
from trainers.exits import fail

NAMES = {1: "unigram", 2: "bigram", 3: "trigram"}

# What is taken from counts of 1, 2 and more where the counts are too few to tell, as KenLM's --discount_fallback.
FALLBACK = (0.5, 1.0, 1.5)


@dataclass(frozen=True)
class Text:
    """The tokens of all blocks, one block after the other, and each token's position in its block.

    An n-gram of it is packed into one integer, the digits of a number to the base n_vocab, its last token last.
    """

    ids: np.ndarray
    positions: np.ndarray
    n_vocab: int

    def ngrams(self, ends: np.ndarray, order: int) -> np.ndarray:
        """The packed n-grams that end at these places; the caller sees to it that they lie inside a block."""
        packed = np.zeros(len(ends), np.int64)
        for back in range(order):
            packed += self.ids[ends - back] * self.n_vocab**back
        return packed


def read(blocks: Blocks, n_vocab: int) -> Text:
    """The blocks as one text."""
    lengths = np.asarray(blocks.lengths)
    positions = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    ids = blocks.tokens.ids[np.repeat(blocks.firsts, lengths) + positions]
    return Text(ids.astype(np.int64), positions, n_vocab)


@dataclass(frozen=True)
class Level:
    """One order of a model: shares of a context's count, of its n-grams and of what their discounts leave over."""

    ngrams: np.ndarray  # packed, ascending
    shares: np.ndarray
    contexts: np.ndarray  # packed, ascending
    rests: np.ndarray


def discounts(counts: np.ndarray) -> np.ndarray:
    """What is taken from a count of 0, 1, 2, and 3 or more, from the counts of these counts.

    >>> discounts(np.repeat([1, 2, 3, 4], [8, 4, 2, 1])).tolist()
    [0.0, 0.5, 1.25, 2.0]
    """
    n1, n2, n3, n4 = ((counts == count).sum() for count in (1, 2, 3, 4))
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if found.min() >= 0:
            return found
    return np.array([0.0, *FALLBACK])


def level(ngrams: np.ndarray, counts: np.ndarray, n_vocab: int) -> Level:
    """From distinct n-grams, ascending, and their counts."""
    taken = discounts(counts)[np.minimum(counts, 3)]
    contexts, starts = np.unique(ngrams // n_vocab, return_index=True)
    totals = np.add.reduceat(counts, starts)
    shares = (counts - taken) / np.repeat(totals, np.diff(starts, append=len(ngrams)))
    return Level(ngrams, shares, contexts, np.add.reduceat(taken, starts) / totals)


def kneser_ney(ngrams: np.ndarray, order: int, n_vocab: int) -> list[Level]:
    """A model of the highest order's n-grams, as often as they occur; its levels from the unigram up.

    Below the highest order an n-gram counts once for each different token before it.
    """
    distinct, counts = np.unique(ngrams, return_counts=True)
    levels = [level(distinct, counts, n_vocab)]
    for lower in range(order - 1, 0, -1):
        distinct, counts = np.unique(distinct % n_vocab**lower, return_counts=True)
        levels.insert(0, level(distinct, counts, n_vocab))
    return levels


def probabilities(levels: list[Level], ngrams: np.ndarray, n_vocab: int) -> np.ndarray:
    """Each n-gram's last token's probability after the others; they are of the model's order."""
    found = np.full(len(ngrams), 1 / n_vocab)
    for order, one in enumerate(levels, 1):
        seen = ngrams % n_vocab**order
        rests = look_up(one.contexts, one.rests, seen // n_vocab, missing=1.0)
        found = look_up(one.ngrams, one.shares, seen, missing=0.0) + rests * found
    return found


def look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray, missing: float) -> np.ndarray:
    """The values of the wanted keys; the keys are ascending."""
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], missing)


def count(text: Text) -> dict[int, list[Level]]:
    """The model of each order, of the n-grams that lie whole inside a block."""
    models = {}
    for order in NAMES:
        ngrams = text.ngrams(np.flatnonzero(text.positions >= order - 1), order)
        models[order] = kneser_ney(ngrams, order, text.n_vocab)
    return models


def target_nats(models: dict[int, list[Level]], text: Text, order: int) -> np.ndarray:
    """The loss of each target, which is every token of a block but its first, by the model of an order.

    Like the pretrained models it sees nothing before the block: where fewer tokens stand there than it could read, the
    model of a lower order takes its place.
    """
    targets = np.flatnonzero(text.positions)
    orders = np.minimum(text.positions[targets] + 1, order)
    nats = np.empty(len(targets))
    for used in np.unique(orders).tolist():
        chosen = orders == used
        ngrams = text.ngrams(targets[chosen], used)
        nats[chosen] = -np.log(probabilities(models[used], ngrams, text.n_vocab))
    return nats


def report(args: argparse.Namespace) -> str:
    """The perplexities as Markdown."""
    tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
    corpus = CorpusConfig(
        name="files", files=args.files, valid_files=args.valid_files, max_tokens=args.max_tokens, cache=args.cache
    )
    train, held_out = (
        read(corpus_blocks(corpus, tokenizer, args.n_ctx, held_out), len(tokenizer)) for held_out in (False, True)
    )
    models = count(train)
    lines = ["| order | distinct n-grams | held-out nats a token | perplexity |", "|---|---|---|---|"]
    for order, name in NAMES.items():
        nats = target_nats(models, held_out, order)
        distinct = len(models[order][-1].ngrams)
        lines.append(f"| {name} | {distinct:,} | {nats.mean():.4f} | {np.exp(nats.mean()):.2f} |")
    return "\n".join([*lines, "", f"Counted on {len(train.ids):,} tokens; {len(nats):,} targets."])


def main() -> None:
    """Count, score, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="a folder, such as a pretrained model's")
    parser.add_argument("--files", nargs="+", required=True, help="corpus.files of the run")
    parser.add_argument("--valid-files", nargs="+", required=True, help="corpus.valid_files of the run")
    parser.add_argument("--max-tokens", type=int, help="corpus.max_tokens of the run")
    parser.add_argument("--n-ctx", type=int, default=512, help="train.n_ctx of the run")
    parser.add_argument("--cache", help="corpus.cache of the run")
    try:
        print(report(parser.parse_args()))
    except InputError as error:
        fail(str(error))


if __name__ == "__main__":
    main()
