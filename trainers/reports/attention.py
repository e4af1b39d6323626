"""Pictures of what a backbone attends to, and of which positions carry a target in pretraining."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm

from heads.errors import InputError
from heads.masked_lm import mask_tokens
from trainers.backbones.load import load_backbone, load_tokenizer
from trainers.config import BackboneConfig, ReportConfig
from trainers.garbage import search_as_usual
from trainers.reports.command import compose
from trainers.reports.figures import (
    INK,
    Plot,
    drawing,
    finish,
    make_folder,
    new_figure,
    panels,
    shortened,
    styles,
    write_plot,
)

# T tokens, H heads

MOST_TOKENS = 40


class Attention(NamedTuple):
    """One layer's attention on a text: rows are queries, which sum to 1 over the keys."""

    backbone: str
    layer: int
    tokens: list[str]
    weights_HTT: np.ndarray

    @property
    def family(self) -> str:
        """Causal where no token attends to a later one."""
        return "causal" if np.allclose(np.triu(self.weights_HTT, k=1), 0) else "bidirectional"


def report_attention(config: ReportConfig) -> None:
    """Write a picture for each backbone and one of the positions with targets, and print where they are.

    Raises:
        InputError: a backbone does not exist, has no attention, or has no such layer.
    """
    search_as_usual()  # the libraries are imported
    folder = Path(config.output or "outputs/attention")
    found = [attention_of(_backbone(name), config.text, config.layer) for name in config.attention]
    plots = [*(attention_plot(one) for one in found), targets_plot(found[0].tokens)]
    make_folder(folder)
    for plot in plots:
        write_plot(folder, plot)
    print(f"{len(plots)} pictures in {folder}: {', '.join(f'{plot.name}.png' for plot in plots)}")


def _backbone(name: str) -> BackboneConfig:
    """A file of conf/backbone/, or a folder with a model."""
    composed = compose("finetune", ("task=sst2", f"backbone={name}"))  # any task: the backbone is what is read
    if composed is not None:
        return BackboneConfig(**composed["backbone"])
    if (Path(name) / "config.json").is_file():
        return BackboneConfig(name=Path(name).resolve().name, hub=name, family="bidirectional")
    raise InputError(
        f"attention={name} is neither a file of conf/backbone/ nor a folder with a model (no config.json): give a "
        "backbone's name, or the model/ of a run"
    )


def attention_of(backbone: BackboneConfig, text: str, layer: int) -> Attention:
    """The attention of one layer on a text, by transformers' plain attention; layers count from 1, -1 is the last.

    Raises:
        InputError: it has no attention, no such layer, or the text has too many tokens to be drawn.
    """
    tokenizer: Any = load_tokenizer(backbone)
    ids = tokenizer(text)["input_ids"]
    if not 2 <= len(ids) <= MOST_TOKENS:
        raise InputError(f"text has {len(ids)} tokens for {backbone.name}: a picture takes 2 to {MOST_TOKENS}")
    # the network alone, of either family: no head is asked
    model: Any = load_backbone(replace(backbone, family="bidirectional", attention="eager")).base.eval()
    model.config.output_attentions = True  # a recurrent network's forward has no such argument
    with torch.no_grad():
        layers = getattr(model(input_ids=torch.tensor([ids])), "attentions", None)
    if not layers:
        raise InputError(f"{backbone.name} ({model.config.model_type}) has no attention to show: name a Transformer")
    if not (1 <= layer <= len(layers) or layer == -1):
        raise InputError(f"layer={layer}: {backbone.name} has layers 1 to {len(layers)} (-1 is the last)")
    place = len(layers) if layer == -1 else layer
    tokens = [tokenizer.decode([one]).strip() or "␣" for one in ids]
    return Attention(backbone.name, place, tokens, layers[place - 1][0].float().numpy())


def attention_plot(found: Attention) -> Plot:
    """A heat map for each head."""
    n_heads, n = found.weights_HTT.shape[:2]
    columns, side = min(n_heads, 3), max(2.2, 0.6 + 0.16 * n)
    name = f"attention_{found.backbone}"
    with drawing(name):
        figure = new_figure(0.8 + (side + 0.5) * columns, 0.6 + (side + 0.4) * math.ceil(n_heads / columns))
        each, whole = panels(figure, n_heads), PowerNorm(0.5, 0, 1)  # so that a twentieth is told from nothing
        for head, (axes, weights_TT) in enumerate(zip(each, found.weights_HTT, strict=True)):
            axes.imshow(weights_TT, norm=whole, cmap="cividis")
            _name_tokens(axes, found.tokens)
            axes.set_title(f"head {head + 1}")
        bar = figure.colorbar(ScalarMappable(whole, "cividis"), ax=each, shrink=0.6, pad=0.02)
        bar.outline.set_edgecolor(INK)
        caption = f"{found.backbone}, layer {found.layer}: a row's token attends to the columns' ({found.family})."
        figure.suptitle(caption, fontsize=10.5)
        rows = [
            {"head": h + 1, "query": i, "key": j, "query_token": found.tokens[i], "key_token": found.tokens[j]}
            | {"weight": float(found.weights_HTT[h, i, j])}
            for h, i, j in np.ndindex(found.weights_HTT.shape)
        ]
        return finish(figure, name, f"Attention of {found.backbone}", caption, rows)


def _name_tokens(axes: Axes, tokens: Sequence[str]) -> None:
    size = 8 if len(tokens) <= 24 else 6
    names = [shortened(token, 12) for token in tokens]
    axes.set_xticks(range(len(tokens)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(tokens)), names, fontsize=size)
    axes.grid(visible=False)


def targets_plot(tokens: Sequence[str]) -> Plot:
    """Which positions of a text carry a target: all but the first under a causal LM, 15 % under a masked one."""
    n = len(tokens)
    ids, rng = np.arange(n), np.random.default_rng(0)
    _, masked = mask_tokens(ids, np.ones(n, dtype=bool), rng, mask_id=0, n_vocab=n, special_ids=[])
    has = {"causal LM": [i > 0 for i in range(n)], "masked LM": [i in masked for i in range(n)]}
    with drawing("targets"):
        figure = new_figure(1.6 + 0.42 * n, 2.2)
        axes = figure.add_subplot()
        for row, (each, style) in enumerate(zip(has.values(), styles(2), strict=True)):
            for i, target in enumerate(each):
                hatch = "///" if target else ""
                fill = style.color if target else "none"
                axes.barh(
                    row, 0.9, 0.7, left=i - 0.45, facecolor=fill, edgecolor=INK, alpha=0.8, hatch=hatch, linewidth=0.8
                )
            axes.text(n - 0.3, row, f"{sum(each)} of {n} ({sum(each) / n:.0%})", va="center")
        axes.set_yticks([0, 1], list(has))
        axes.set_xticks(range(n), [shortened(token, 12) for token in tokens], rotation=45, ha="right")
        axes.set(xlim=(-0.6, n + 2.6))
        axes.invert_yaxis()
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        caption = (
            "Positions that carry a target in one pass over a text: every one that follows another, or a drawn 15 %."
        )
        rows = [
            {"objective": name, "position": i, "token": tokens[i], "target": target}
            for name, each in has.items()
            for i, target in enumerate(each)
        ]
        return finish(figure, "targets", "Positions with a target", caption, rows)
