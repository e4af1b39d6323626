"""How well a language model knows a text, without training: recipes/zero_shot.py objective=lm."""

import math
from typing import Any

from heads.errors import InputError
from trainers.backbones.load import Backbone, check_family, check_lm_head, load_backbone, load_tokenizer, n_positions
from trainers.build import check_ids
from trainers.config import PerplexityConfig
from trainers.data.corpus import Blocks, Tokens, corpus_blocks
from trainers.data.pairs import MaskedPairs, masked_pairs
from trainers.language_models import MaskedWords, NextWord
from trainers.loop import held_out_loss
from trainers.results import environment, write_result
from trainers.summary import perplexity_summary
from trainers.training import open_run

Text = Blocks | MaskedPairs


def perplexity(config: PerplexityConfig) -> dict[str, Any]:
    """Score a text with a backbone as it is; returns what result.json holds.

    Raises:
        InputError: something that the user typed or supplied is wrong.
    """
    config, folder, accelerator = open_run(config)
    masked = config.backbone.family == "bidirectional"
    tokenizer = load_tokenizer(config.backbone)
    backbone = load_backbone(config.backbone, lm=True)
    check_family(config.backbone, backbone.base)
    check_ids(tokenizer, backbone, config.backbone.name)
    if n_positions(backbone.base) < config.n_ctx:
        raise InputError(
            f"n_ctx={config.n_ctx}, and {config.backbone.name} has positions for {n_positions(backbone.base)} tokens: "
            "lower it"
        )
    model = _language_model(config, backbone)
    with accelerator.main_process_first():  # the others find what the first has tokenised
        blocks = corpus_blocks(config.corpus, tokenizer, config.n_ctx, held_out=False)
    text: Text = masked_pairs(blocks, tokenizer, config.n_ctx, config.seed) if masked else blocks
    pad_id = tokenizer.pad_token_id
    nats, n_targets = held_out_loss(
        accelerator,
        accelerator.prepare_model(model, evaluation_mode=True),
        text,
        range(len(text)),
        pad_id=pad_id if isinstance(pad_id, int) else 0,
        max_tokens=config.eval_tokens,
    )
    found = perplexities(nats, n_targets, text.tokens, causal=not masked)
    result = {
        "objective": "masked_lm" if masked else "lm",
        "backbone": config.backbone.name,
        "seed": config.seed,
        "zero_shot": {"text": found},
        "primary": {"split": "text", "metric": "perplexity", "value": found["perplexity"]},
        "n_ctx": config.n_ctx,
        "mixed_precision": accelerator.mixed_precision,
        "corpus": {"files": config.corpus.files, "hub": config.corpus.hub},
        "versions": environment(),
    }
    if accelerator.is_main_process:
        write_result(folder, result)
        perplexity_summary(result, folder)
    return result


def _language_model(config: PerplexityConfig, backbone: Backbone) -> NextWord | MaskedWords:
    """The backbone with its loss.

    Raises:
        InputError: its words are not predicted as our losses have it.
    """
    if config.backbone.family == "causal":
        check_lm_head(config.backbone, backbone.full)
        return NextWord(backbone.full)
    if not hasattr(getattr(backbone.full, "cls", None), "predictions"):
        raise InputError(
            f"backbone {config.backbone.name}: objective=lm reads masked words by BERT's head (cls.predictions), which "
            f"{backbone.full.config.model_type} does not have: type backbone=bert_base or mini_bert"
        )
    return MaskedWords(backbone.full)


def perplexities(nats: float, n_targets: int, tokens: Tokens, *, causal: bool) -> dict[str, Any]:
    """What a result says of a text's loss: nats a target, and the perplexities; null a word for a masked LM."""
    loss = nats / n_targets
    return {
        "loss": loss,
        "perplexity": _exp(loss),
        "perplexity_per_word": _exp(loss * len(tokens.ids) / tokens.n_words) if causal else None,
        "targets": n_targets,
        "tokens": len(tokens.ids),
        "words": tokens.n_words,
    }


def _exp(nats: float) -> float:
    """exp, or infinity where that is no float: a script without blanks has whole lines as words."""
    return math.exp(nats) if nats < 700 else math.inf
