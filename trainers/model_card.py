"""The card of a pretrained model: what it was trained on, for how long, and what it reaches, from the run's result."""

from typing import Any

from trainers.backbones.lstm import LstmConfig
from trainers.config import PretrainConfig

WAYS = {
    "lm": ("text-generation", "AutoModelForCausalLM", "the next word"),
    "masked_lm": ("fill-mask", "AutoModelForPreTraining", "masked words and the next sentence, as BERT"),
}


def model_card(config: PretrainConfig, result: dict[str, Any], model_type: str) -> str:
    """Markdown with the hub's header; result is what result.json holds, model_type the name that transformers knows.

    It says what the run knows. Licence and a description of the text are for whoever publishes the model.
    """
    task, auto, learned = WAYS[result["objective"]]
    train, held_out, optim = result["train"], result["held_out"], config.optim
    per_word = held_out["perplexity_per_word"]
    rows = {
        "parameters": f"{train['parameters']:,}",
        "objective": learned,
        "tokens": f"{train['tokens']:,} in {train['epochs']:.2f} passes over the text",
        **_start(config),
        "updates": f"{train['steps']:,} of {config.train.batch_size} x {config.train.n_ctx} tokens",
        "optimizer": f"{optim.name}, learning rate {optim.lr:g}, {optim.schedule}, warm-up {optim.warmup:g}, "
        f"weight decay {optim.weight_decay:g}",
        "precision": f"{train['mixed_precision']} mixed" if train["mixed_precision"] != "no" else "float32",
        "hardware": f"{train['processes']} x {train['device']}, {train['threads']} CPU threads each",
        "time": f"{train['seconds'] / 3600:.2f} hours ({train['tokens_per_second']:,.0f} tokens/s)",
        "seed": str(result["seed"]),
        "held-out perplexity": f"{held_out['perplexity']:.2f} a {'token' if per_word else 'masked token'}"
        + (f", {per_word:.2f} a word" if per_word else "")
        + f" ({held_out['targets']:,} predicted)",
    }
    versions = ", ".join(f"{name} {value}" for name, value in result["versions"].items())
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return f"""---
library_name: transformers
pipeline_tag: {task}
tags: [ablatune]
---

# {result["backbone"]}

A language model pretrained by ablatune's `recipes/pretrain.py`. It opens with `{auto}` and `AutoTokenizer`\
{", after `import trainers.backbones.lstm`" if model_type == LstmConfig.model_type else ""}.

| | |
|---|---|
{table}

Versions: {versions}.
"""


def _start(config: PretrainConfig) -> dict[str, str]:
    """What the weights were before the first update, where they were not drawn."""
    sinusoidal = config.positions == "sinusoidal"
    if config.init_checkpoint is not None:
        return {"goes on from": config.init_checkpoint + (", further positions from sinusoids" if sinusoidal else "")}
    return {"positions": "sinusoids at the start, then learned"} if sinusoidal else {}
