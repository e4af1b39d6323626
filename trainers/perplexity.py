"""How well a language model knows a text, without training: recipes/zero_shot.py objective=lm."""

from typing import Any

from trainers.backbones.load import check_context
from trainers.config import PerplexityConfig
from trainers.data.corpus import corpus_blocks
from trainers.data.pairs import Text, masked_pairs
from trainers.data.tokenizers import padding_id
from trainers.language_models import open_language_model
from trainers.loop import held_out_loss
from trainers.metrics import perplexities
from trainers.results import environment, write_result
from trainers.summary import perplexity_summary
from trainers.training import open_run


def perplexity(config: PerplexityConfig) -> dict[str, Any]:
    """Score a text with a backbone as it is; returns what result.json holds.

    Raises:
        InputError: something that the user typed or supplied is wrong.
    """
    with open_run(config) as (config, folder, accelerator):
        masked = config.backbone.family == "bidirectional"
        tokenizer, backbone, model = open_language_model(config.backbone)
        check_context("n_ctx", config.n_ctx, config.backbone, backbone.base)
        with accelerator.main_process_first():  # the others find what the first has tokenised
            blocks = corpus_blocks(config.corpus, tokenizer, config.n_ctx, held_out=False)
        text: Text = masked_pairs(blocks, tokenizer, config.n_ctx, config.seed) if masked else blocks
        nats, n_targets = held_out_loss(
            accelerator,
            accelerator.prepare_model(model, evaluation_mode=True),
            text,
            range(len(text)),
            pad_id=padding_id(tokenizer),
            max_tokens=config.eval_tokens,
        )
        n_tokens, n_words = len(text.tokens.ids), text.tokens.n_words
        found = perplexities(nats, n_targets, n_tokens=n_tokens, n_words=n_words, causal=not masked)
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
