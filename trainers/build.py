"""From a config to what it names: tokenizer, backbone, layout, head, adapter."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from accelerate.utils import set_seed
from torch import nn
from transformers import PreTrainedTokenizerBase

from heads.errors import InputError
from heads.layouts import BertLayout, Gpt1Layout, TextLayout
from heads.structures import STRUCTURES
from heads.table import HEADS
from heads.text_to_text import TextToText, level_words
from trainers.adapters import add_adapter
from trainers.backbones.lm_head import OwnHead, lm_head_of
from trainers.backbones.load import AUTO, Backbone, check_family, load_backbone, load_tokenizer, n_positions
from trainers.backbones.transfer import add_embeddings, check_count, freeze, keep_layers, layer_of, n_layers
from trainers.backbones.tree import window
from trainers.compilation import compiles
from trainers.config import FinetuneConfig
from trainers.data.encode import Encoder
from trainers.data.split import Split
from trainers.data.tokenizers import (
    SPECIALS,
    add_gpt1_specials,
    bert_layout,
    encode_texts,
    gpt1_layout,
    keep_words,
    padding_id,
    text_layout,
)
from trainers.model import TaskModel, base_of
from trainers.objectives import n_outputs
from trainers.text_to_text import TextToTextModel

if TYPE_CHECKING:
    from accelerate import Accelerator


FEW_TOKENS = 0.9  # share of a model's embeddings that its own tokenizer uses at least; others are padding


@dataclass
class Foundation:
    """A backbone with its tokenizer and layout: all that data preparation needs, and a head stands on.

    new_tokens are the ids of the embeddings that were drawn for this run; anew names the backbone's parameters that do
    not come from its source.
    """

    tokenizer: PreTrainedTokenizerBase
    backbone: Backbone
    layout: Gpt1Layout | BertLayout | TextLayout
    new_tokens: list[int]
    anew: list[str]

    @property
    def warnings(self) -> list[str]:
        """What is odd about the backbone's files, a line each."""
        found = []
        base, name = self.backbone.base, self.backbone.full.config.name_or_path
        if lacking := [weight for weight in self.backbone.new_weights if "pooler" not in weight]:
            shown = f"{', '.join(lacking[:3])}{', ...' if len(lacking) > 3 else ''}"
            found.append(f"{len(lacking)} of the weights of {name} are not in its files and start at random: {shown}")
        n_rows, n_tokens = getattr(base.config, "vocab_size", 0) or 0, len(self.tokenizer)
        if n_tokens < FEW_TOKENS * n_rows:
            found.append(
                f"the tokenizer of {name} has {n_tokens} tokens and its model embeddings for {n_rows}: check that they "
                "are of the same model"
            )
        return found

    @property
    def pad_id(self) -> int:
        """An id to pad with."""
        return padding_id(self.tokenizer)

    def encoder(self, config: FinetuneConfig) -> Encoder:
        """The encoder of this tokenizer and layout for a config's task."""
        name = structure(config)
        transform = _text_to_text(config) if name == "text_to_text" else STRUCTURES[name]
        return Encoder(name, transform, self.tokenizer, self.layout, config.data.cleaning)

    def layer_of(self) -> Callable[[str], int]:
        """A function from the name of one of the whole model's parameters to its layer; heads are at the top."""
        base = self.backbone.base
        layer = layer_of(base)

        def of(name: str) -> int:
            if not name.startswith("backbone."):
                return n_layers(base) + 1
            inner = name.removeprefix("backbone.").removeprefix("base_model.model.").replace(".base_layer", "")
            return layer(inner)

        return of


def structure(config: FinetuneConfig) -> str:
    """The task's structure; a head that reads one order takes a similarity pair as it comes, and T5's one text."""
    if config.objective.name == "text_to_text":
        return "text_to_text"
    one_order = config.task.structure == "similarity" and not config.head.both_orders
    return "entailment" if one_order else config.task.structure


def _text_to_text(config: FinetuneConfig) -> TextToText:
    task = config.task
    columns = task.choices if len(task.choices) > 1 else []  # one column holds a list, whose items have no names
    return TextToText(task.name, tuple(task.texts), tuple(task.labels or columns))


def lay_foundation(config: FinetuneConfig) -> Foundation:
    """Tokenizer, backbone and layout; what is drawn at random is drawn from the seed of weights.

    Raises:
        InputError: the backbone cannot be read, or has fewer blocks or positions than asked for.
    """
    set_seed(config.seed_of_weights)
    tokenizer = load_tokenizer(config.backbone)
    if config.data.cleaning == "gpt1":
        keep_words(tokenizer)
    backbone = load_backbone(config.backbone)
    check_family(config.backbone, backbone.base)
    base, name = backbone.base, config.backbone.name
    for key in ("n_transfer", "n_frozen", "n_trained", "n_reinit"):
        check_count(key, getattr(config, key), base, name)
    anew = list(backbone.new_weights)
    if config.n_transfer is not None or config.n_reinit:
        kept = config.n_transfer if config.n_transfer is not None else n_layers(base) - config.n_reinit
        fresh = AUTO[config.backbone.family].from_config(base.config)
        anew += keep_layers(backbone.full, kept, fresh)
    n_ctx = _n_ctx(config, backbone)
    new_tokens: list[int] = []
    if config.head.name == "gpt1":
        known = set(tokenizer.get_vocab())
        specials = add_gpt1_specials(tokenizer)
        new_tokens = [i for i, token in zip(specials, SPECIALS, strict=True) if token not in known]
        add_embeddings(backbone.full, new_tokens, len(tokenizer), name)
        layout: Gpt1Layout | BertLayout | TextLayout = gpt1_layout(specials, n_ctx)
    elif config.head.name == "text_to_text":
        layout = text_layout(tokenizer, n_ctx)
    else:
        layout = bert_layout(tokenizer, n_ctx)
    layout = replace(layout, truncation=config.data.truncation)
    check_ids(tokenizer, backbone, name)
    return Foundation(tokenizer, backbone, layout, new_tokens, anew)


def _n_ctx(config: FinetuneConfig, backbone: Backbone) -> int:
    limit = n_positions(backbone.base)
    n_virtual = config.peft.n_virtual_tokens if config.peft.method == "prefix" else 0
    wanted = config.head.n_ctx or limit - n_virtual
    if wanted + n_virtual > limit:
        raise InputError(
            f"head.n_ctx={wanted}{f' with {n_virtual} virtual tokens' if n_virtual else ''}, and "
            f"{config.backbone.name} has positions for {limit} tokens: give at most {limit - n_virtual}"
        )
    return wanted


def check_ids(tokenizer: PreTrainedTokenizerBase, backbone: Backbone, name: str) -> None:
    """Make sure that every id of the tokenizer has an embedding.

    Raises:
        InputError: one has none.
    """
    try:
        table: Any = backbone.full.get_input_embeddings()
    except NotImplementedError:  # CANINE hashes characters, of which it reads any
        return
    rows = table.weight.shape[0]
    largest = max([len(tokenizer) - 1, *(i for ids in encode_texts(tokenizer, ["a"]) for i in ids)])
    if largest >= rows:
        raise InputError(
            f"{name}: its tokenizer has {largest + 1} tokens and its model {rows} embeddings: they are not of one model"
        )


def assemble(config: FinetuneConfig, foundation: Foundation, labels: list[str]) -> TaskModel | TextToTextModel:
    """The model that is trained: a new head on the backbone, with the adapter and the frozen layers asked for."""
    base = foundation.backbone.base
    if config.objective.name == "text_to_text":
        network = add_adapter(config.peft, base, []) if config.peft.method != "none" else base
        score_range = config.task.score_bounds
        targets = _targets(foundation, level_words(score_range) if score_range else labels)
        return TextToTextModel(network, targets, score_range[0] if score_range else None)
    lm_head = _lm_head(config, foundation) if config.objective.lm_coef > 0 else None
    set_seed(config.seed_of_weights)  # the head's weights do not depend on what was drawn before
    head = HEADS[structure(config)](base.config.hidden_size, n_outputs(config, labels), config.head.clf_pdrop)
    _init_head(head)
    freeze(base, config.n_frozen if config.n_trained is None else n_layers(base) - config.n_trained)
    network: Any = base
    if config.peft.method != "none":
        network = add_adapter(config.peft, base, foundation.new_tokens)
    # An adapter leaves the pooler as it is: one that came without weights would stay random
    without = config.peft.method != "none" or config.init_from is not None  # a run of such an adapter has no pooler
    random_pooler = without and any("pooler" in name for name in foundation.backbone.new_weights)
    pooler = config.head.name == "cls" and not random_pooler
    return TaskModel(network, head, lm=config.objective.lm_coef > 0, pooler=pooler, lm_head=lm_head)


def _lm_head(config: FinetuneConfig, foundation: Foundation) -> nn.Linear | OwnHead | None:
    """What gives the auxiliary LM loss its logits; None where the embeddings are its output weights."""
    full = foundation.backbone.full
    found, output = lm_head_of(full, config.backbone.name), full.get_output_embeddings()
    adapted = config.peft.method != "none"  # an adapter leaves the pretrained weights alone
    if isinstance(found, OwnHead):
        for parameter in found.parameters.values():
            parameter.requires_grad_(not adapted)
        return found
    if found is full.get_input_embeddings().weight or not isinstance(output, nn.Linear):
        return None
    return output.requires_grad_(not adapted)


def _targets(foundation: Foundation, words: list[str]) -> list[list[int]]:
    """Each label's words in token ids, between the special tokens of a text."""
    layout, tokenizer = foundation.layout, foundation.tokenizer
    assert isinstance(layout, TextLayout)
    targets = [[*layout.opening, *ids, *layout.closing] for ids in encode_texts(tokenizer, words)]
    said = {tuple(ids): word for ids, word in zip(targets, words, strict=True)}
    for ids, word in zip(targets, words, strict=True):
        if said[tuple(ids)] != word:
            raise InputError(
                f"the labels {word} and {said[tuple(ids)]} are the same words to this tokenizer: name them otherwise "
                "by task.labels=[...]"
            )
    return targets


def share_candidates(config: FinetuneConfig, model: TaskModel | TextToTextModel, split: Split) -> Split:
    """The split with each example's candidates in one row, where the config allows it and it changes no state.

    Raises:
        InputError: train.candidates=shared, and it would change them.
    """
    asked, causal = config.train.candidates, config.backbone.family == "causal"
    if not isinstance(model, TaskModel) or not causal:
        return split
    if asked == "separate" or structure(config) != "multiple_choice":
        return split
    base = base_of(model.backbone)
    longest, limit = int(split.tree_lengths.max()), window(base.config)
    if model.takes_trees and longest <= limit:
        return replace(split, shared=True)
    if asked == "shared":
        reason = (
            f"attends to the last {limit} tokens, and the longest row of {split.name} would have {longest}"
            if model.takes_trees
            else f"({base.config.model_type}) does not give the states of separate rows that way"
        )
        raise InputError(f"train.candidates=shared: {config.backbone.name} {reason}: use train.candidates=auto")
    return split


def pack_sequences(
    config: FinetuneConfig, accelerator: "Accelerator", model: TaskModel | TextToTextModel, split: Split
) -> Split:
    """The split with all sequences of a batch in one row, where that is faster and the backbone gives the same states.

    On a CPU, and for a backbone whose attention is left to us and that is not compiled: a compiler would begin anew for
    each batch's groups of sequences. Candidates that share a row, or that are asked to have one each, keep it.
    """
    compiled = config.train.compile or compiles(accelerator)
    if not isinstance(model, TaskModel) or accelerator.device.type != "cpu" or config.backbone.attention or compiled:
        return split
    if config.backbone.family == "causal":
        apart = config.train.candidates == "separate" and structure(config) == "multiple_choice"
        if split.shared or apart or int(split.lengths.max()) > window(base_of(model.backbone).config):
            return split
    return replace(split, packed=model.takes_packing)


def _init_head(head: nn.Module) -> None:
    """N(0, 0.02) and zero, as train.py's clf and BERT's classifier."""
    for parameter in head.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.02)
        else:
            nn.init.zeros_(parameter)
