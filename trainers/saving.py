"""A run's model on disk, and back.

``model/`` holds the backbone as transformers saves it (or the adapter as peft does), its tokenizer, and the head in
head.safetensors. A BERT classifier is saved as transformers' own BertForSequenceClassification, head included.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn

from heads.classification import ClassificationHead
from heads.errors import InputError
from heads.output_layer import load_head
from trainers.adapters import load_adapter, merge_adapter
from trainers.backbones.lm_head import state_name
from trainers.backbones.source import content_of
from trainers.build import Foundation, assemble, lay_foundation
from trainers.config import BackboneConfig, FinetuneConfig, PeftConfig, TaskConfig
from trainers.data.cache import made_once
from trainers.data.tokenizers import save_tokenizer
from trainers.model import TaskModel, base_of
from trainers.runs import read_config, read_result
from trainers.shared import sharing
from trainers.text_to_text import TextToTextModel

HEAD, NEW_TOKENS = "head.safetensors", "new_tokens.safetensors"


def whole_state(accelerator: Accelerator, model: nn.Module) -> dict[str, Any]:
    """A prepared model's state, gathered, by the names that it had before; what torch.compile has made is seen through.

    Every process calls it; where weights are in shards, the main process alone has the whole.
    """
    return accelerator.get_state_dict(getattr(model, "_orig_mod", model))


def save_model(
    folder: Path,
    model: TaskModel | TextToTextModel,
    foundation: Foundation,
    config: FinetuneConfig,
    state: dict[str, Any],
    labels: list[str],
) -> None:
    """Write folder/model, in place of the one that is there; state is the whole model's, gathered."""
    partial = folder / "model.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir()
    if isinstance(model, TaskModel):  # who answers in words has no head
        save_file({name: tensor.contiguous() for name, tensor in part(state, "head.").items()}, partial / HEAD)
    save_tokenizer(foundation.tokenizer, partial)
    backbone: Any = model.backbone
    if config.peft.method != "none":
        # new rows have a file of their own
        backbone.save_pretrained(partial, state_dict=part(state, "backbone."), save_embedding_layers=False)
        if foundation.new_tokens:
            rows = base_of(backbone).get_input_embeddings().weight.detach()[foundation.new_tokens]
            save_file({"rows": rows.clone()}, partial / NEW_TOKENS)
    elif classifier := _bert_classifier(model, labels):
        whole = {f"bert.{name}": tensor for name, tensor in part(state, "backbone.").items()}
        linear: Any = classifier.classifier
        last = {name: tensor for name, tensor in part(state, "head.linear.").items() if name in ("weight", "bias")}
        whole |= {f"classifier.{name}": linear.folded(name, tensor) for name, tensor in last.items()}
        classifier.save_pretrained(partial, state_dict=whole)
    else:
        _save_backbone(partial, foundation, state)
    _put_in_place(partial, folder / "model")


def _save_backbone(partial: Path, foundation: Foundation, state: dict[str, Any]) -> None:
    full = foundation.backbone.full
    prefix = "" if full is foundation.backbone.base else f"{full.base_model_prefix}."
    whole = {f"{prefix}{name}": tensor for name, tensor in part(state, "backbone.").items()}
    # What is left is an LM head, trained or not. One that is tied is in the state as the embeddings; under FSDP 2 its
    # own parameter keeps the weights from before the training.
    inside = (prefix, *full.all_tied_weights_keys) if prefix else ("",)
    for name, parameter in full.named_parameters():
        if not name.startswith(inside):
            last = state.get(f"lm_head.{name.rsplit('.', 1)[-1]}", parameter.detach())
            whole[name] = state.get(f"lm_head.{state_name(name)}", last)
    full.save_pretrained(partial, state_dict=whole)


def _put_in_place(partial: Path, target: Path) -> None:
    aside = target.with_name("model.aside")
    if target.exists():
        if aside.exists():  # a run killed just here has left it
            shutil.rmtree(aside)
        target.rename(aside)
    partial.rename(target)
    if aside.exists():
        shutil.rmtree(aside)


def part(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The part of a state whose names begin so, without that.

    Raises:
        ValueError: there is none, so that nothing would be saved.
    """
    found = {name[len(prefix) :]: tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not found:
        raise ValueError(f"no weight's name begins with {prefix}, and these do not: {', '.join([*state][:3])}")
    return found


def _bert_classifier(model: TaskModel | TextToTextModel, labels: list[str]) -> Any:
    """The model as transformers' BertForSequenceClassification, where it is one; else None."""
    from transformers import BertForSequenceClassification, BertModel

    if not isinstance(model, TaskModel):
        return None
    if not (isinstance(model.backbone, BertModel) and model.pooled and isinstance(model.head, ClassificationHead)):
        return None
    linear = model.head.linear
    if linear.out_features not in (1, len(labels)):
        return None  # the soft encoding's levels are nothing that transformers knows
    names = labels if len(labels) == linear.out_features else ["score"]
    config = type(model.backbone.config).from_dict(model.backbone.config.to_dict())
    config.num_labels = linear.out_features
    config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    config.problem_type = "regression" if linear.out_features == 1 else "single_label_classification"
    config.classifier_dropout = model.head.dropout.p
    with torch.device("meta"):
        classifier = BertForSequenceClassification(config)
    classifier.bert, classifier.classifier = model.backbone, linear
    return classifier


def without_changes(config: FinetuneConfig, path: Path) -> FinetuneConfig:
    """The same config on finished weights: nothing is left out, frozen or drawn anew."""
    backbone = _with_weights(config.backbone, path)
    return replace(config, backbone=backbone, n_transfer=None, n_frozen=None, n_trained=None, n_reinit=0)


def _with_weights(backbone: BackboneConfig, folder: Path) -> BackboneConfig:
    """The same backbone with a run's weights; as hub, since path is the user's, whom ablation=lstm lets give none."""
    return replace(backbone, hub=str(folder), path=None, weights="pretrained", revision=None)


def load_model(run: Path) -> tuple[TaskModel | TextToTextModel, Foundation, FinetuneConfig]:
    """The model that a finished run kept, in evaluation mode, with its tokenizer, layout and config.

    Raises:
        InputError: the folder holds no finished run, or its model cannot be read.
    """
    config = read_config(run)
    read_result(run)
    return *load_kept(run, config), config


def load_kept(run: Path, config: FinetuneConfig) -> tuple[TaskModel | TextToTextModel, Foundation]:
    """The model that a run has kept so far, for its config with the labels filled in.

    Raises:
        InputError: its files cannot be read.
    """
    saved = run / "model"
    check_weights(run, config)
    needed = HEAD if config.objective.name == "task" else "tokenizer_config.json"
    if not (saved / needed).is_file():
        raise InputError(f"{saved} has no {needed}: the run's model is gone or broken")
    if config.peft.method == "none":
        settled = without_changes(config, saved)
        with sharing(False):  # no other cell has these weights
            foundation = lay_foundation(settled)
        model = assemble(settled, foundation, config.task.labels)
    else:
        foundation = lay_foundation(start_of(config))
        model = assemble(replace(config, peft=PeftConfig()), foundation, config.task.labels)
        base: Any = model.backbone
        if (saved / NEW_TOKENS).is_file():
            with torch.no_grad():
                base.get_input_embeddings().weight[foundation.new_tokens] = load_file(saved / NEW_TOKENS)["rows"]
        model.backbone = load_adapter(saved, base)
    if isinstance(model, TaskModel):
        load_head(model.head, load_file(saved / HEAD))
    return model.eval(), foundation


def check_weights(run: Path, config: FinetuneConfig) -> None:
    """Make sure that a run has kept its weights.

    Raises:
        InputError: it has not, because of train.save_model=false.
    """
    if not config.train.save_model and not (run / "model").exists():
        raise InputError(
            f"{run} has no weights (train.save_model=false): type its command again with train.save_model=true and "
            "overwrite=true, or name another run"
        )


def delete_weights(run: Path) -> None:
    """Delete the model that a run has kept."""
    shutil.rmtree(run / "model", ignore_errors=True)


def start_of(config: FinetuneConfig) -> FinetuneConfig:
    """The config with the backbone that the run starts from: its own, or what an earlier run (init_from) has kept.

    Raises:
        InputError: the earlier run is not finished, is of another backbone, or kept an adapter that cannot be merged.
    """
    if config.init_from is None:
        return config
    run = Path(config.init_from)
    if "finetune" not in read_result(run):
        raise InputError(f"init_from={run}: nothing was trained there (zero-shot evaluation alone): name another run")
    earlier = read_config(run)
    check_weights(run, earlier)
    if (earlier.backbone.name, earlier.head.name) != (config.backbone.name, config.head.name):
        raise InputError(
            f"init_from={run} has backbone={earlier.backbone.name} head={earlier.head.name}, and this run "
            f"backbone={config.backbone.name} head={config.head.name}: type the earlier run's"
        )
    folder = run / "model" if earlier.peft.method == "none" else _merged(run, earlier)
    return replace(config, backbone=_with_weights(config.backbone, folder))


def _merged(run: Path, config: FinetuneConfig) -> Path:
    """The cached folder of a run's backbone with the run's adapter merged into it."""
    if config.peft.method == "prefix":
        raise InputError(
            f"init_from={run}: that run kept a prefix, which cannot be merged into the backbone: start from a run with "
            "peft=none, lora, dora, ia3 or ln_tuning"
        )

    def make(folder: Path) -> None:
        model, foundation = load_kept(run, config)
        merge_adapter(model.backbone, f"init_from={run}")
        foundation.backbone.full.save_pretrained(folder)
        save_tokenizer(foundation.tokenizer, folder)

    start = content_of(start_of(config).backbone)
    return made_once(None, "merged", [start, content_of(_with_weights(config.backbone, run / "model"))], make)


def same_answers(earlier: TaskConfig, task: TaskConfig) -> bool:
    """Whether a head of one task answers what the other asks: the same labels or scores, for the same structure."""
    return (earlier.labels, earlier.score_range, earlier.structure) == (task.labels, task.score_range, task.structure)


def chain(config: FinetuneConfig) -> list[dict[str, str]]:
    """The runs that a run goes back to, the nearest first; head says whether its head went on, too."""
    found: list[dict[str, str]] = []
    while config.init_from is not None:
        run = Path(config.init_from)
        earlier = read_config(run)
        head = "kept" if same_answers(earlier.task, config.task) else "new"
        found.append({"run": str(run), "task": earlier.task.name, "head": head})
        config = earlier
    return found
