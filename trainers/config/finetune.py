"""The whole config of a fine-tuning run, and the checks that cross its nodes."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from heads.text_to_text import LEVELS
from trainers.choose import choose
from trainers.config.dataset_name import dataset_name
from trainers.config.need import check_run, check_seed, need
from trainers.config.nodes import (
    BackboneConfig,
    DataConfig,
    HeadConfig,
    ObjectiveConfig,
    OptimConfig,
    PeftConfig,
    TrackingConfig,
    TrainConfig,
)
from trainers.config.task import TaskConfig
from trainers.config.zero_shot import ZeroShotConfig

# What changes the speed or the place of a run and none of its numbers: left out of the run folder's name, and free to
# differ when a run is resumed. tests/trainers/test_invariances.py holds the first four to it. train.candidates is not
# one of them: with dropout, candidates that share a row share what is dropped from their prefix.
SPEED_ONLY = (
    "train.micro_batch_size",
    "train.eval_tokens",
    "train.eval_train_rows",
    "train.checkpoint_every",
    "train.compile",
    "train.save_model",
    "baselines",
    "check",
    "zero_shot.tokens",
    "zero_shot.candidates",
    "curve.tokens",
    "corpus.cache",
    "backbone.lstm",  # where it stands in the backbone's place, backbone.hub says so
    "tracking",
    "run_dir",
    "overwrite",
)

# Settings in which the runs of one cell differ.
SEEDS = ("seed", "weight_init_seed", "data_order_seed")


@dataclass
class FinetuneConfig:
    """Everything that a fine-tuning run follows from."""

    task: TaskConfig = MISSING
    data: DataConfig = MISSING
    backbone: BackboneConfig = MISSING
    head: HeadConfig = MISSING
    objective: ObjectiveConfig = MISSING
    optim: OptimConfig = MISSING
    train: TrainConfig = MISSING
    peft: PeftConfig = MISSING
    tracking: TrackingConfig = MISSING
    ablation: str = "none"
    zero_shot: ZeroShotConfig = MISSING
    baselines: str = "auto"  # auto adds a bag of words (TF-IDF, a linear model) up to 200,000 train rows; or none
    seed: int = 0
    # Dodge et al. 2020, section 4, vary these two apart; null is seed
    weight_init_seed: int | None = None  # of what is drawn anew: head, adapter, new tokens' rows, blocks
    data_order_seed: int | None = None  # of the train rows' order, and of dropout
    init_from: str | None = None  # a finished run whose model this one starts from
    n_transfer: int | None = None  # -1 nothing, 0 embeddings, k embeddings and k blocks; null everything
    n_frozen: int | None = None  # 0 embeddings, k embeddings and k blocks are not trained; null trains everything
    n_trained: int | None = None  # top blocks, with what stands above them, that alone are trained; null trains all
    n_reinit: int = 0  # top blocks (and pooler) initialised anew (Zhang et al. 2020)
    # no, bf16, fp16; null is what accelerate was told, else bf16 where the hardware multiplies in it
    mixed_precision: str | None = None
    check: bool = False  # read config, model and data, print what a run would train on, and end without training
    run_dir: str = MISSING
    overwrite: bool = False  # set the finished run in run_dir aside and start anew

    def __post_init__(self) -> None:
        """What crosses nodes."""
        check_run(self)
        check_seed("weight_init_seed", self.seed_of_weights)
        check_seed("data_order_seed", self.seed_of_order)
        need(
            self.objective.name != "lm",
            "objective=lm reads the text of corpus.files and no task: leave task= out, and type it as objective=lm",
        )
        if self.objective.loss == "soft_score" and self.task.regression:
            bounds = self.task.score_bounds
            need(
                bounds is not None and all(bound.is_integer() for bound in bounds),
                "objective.loss=soft_score has a level for each whole score, so it needs "
                f"task.score_range=[least,greatest] in whole numbers, got {self.task.score_range}",
            )
        if self.objective.loss == "soft_f1":
            need(
                self.train.micro_batch_size is None,
                "objective.loss=soft_f1 is a ratio of sums over a whole update: leave train.micro_batch_size out",
            )
        choose({"auto": "", "none": ""}, self.baselines, what="choice", where="baselines")
        self._check_family()
        self._check_twin()
        self._check_transfer()
        loss = self.objective.loss
        if self.task.regression:
            need(
                loss in ("auto", "mse", "soft_score"),
                f"objective.loss={loss} needs classes, and {self.task.name} has scores: use mse or soft_score",
            )
        else:
            need(
                loss in ("auto", "cross_entropy", "soft_f1"),
                f"objective.loss={loss} needs scores, and {self.task.name} has classes: use cross_entropy or soft_f1",
            )
        multiple_choice = self.task.structure == "multiple_choice"
        need(
            not (multiple_choice and (loss == "soft_f1" or self.objective.class_weights)),
            "objective.loss=soft_f1 and objective.class_weights are about classes; the candidates of a multiple-choice "
            f"task ({self.task.name}) are none",
        )
        self._check_class_weights()

    @property
    def dataset(self) -> str:
        """What the data set is called in folders, tables and plots."""
        return dataset_name(self.task.name, self.task.hub, self.task.config, self.data.files.train)

    @property
    def seed_of_weights(self) -> int:
        """What the weights that are drawn anew are drawn from."""
        return self.seed if self.weight_init_seed is None else self.weight_init_seed

    @property
    def seed_of_order(self) -> int:
        """What the order of the train rows, and dropout, are drawn from."""
        return self.seed if self.data_order_seed is None else self.data_order_seed

    def _check_class_weights(self) -> None:
        weights, labels, name = self.objective.class_weights, self.task.labels, self.task.name
        need(
            not weights or (self.objective.loss in ("auto", "cross_entropy") and not self.task.regression),
            f"objective.class_weights need objective.loss=cross_entropy and a task with classes; {name} with "
            f"objective.loss={self.objective.loss} would ignore them: leave them out",
        )
        if not labels:
            return
        for label in weights:
            choose(dict.fromkeys(labels), label, what="label", where="objective.class_weights")
        need(
            any(weights.get(label, 1.0) for label in labels),
            "objective.class_weights is 0 for every label, so nothing would be trained: give one a weight above 0",
        )

    def _check_family(self) -> None:
        self._check_text_to_text()
        family = self.backbone.family
        causal = family == "causal"
        need(
            not (causal and self.head.name == "cls"),
            f"head=cls reads the first token, and in a causal backbone ({self.backbone.name}) that has seen no other: "
            "use head=gpt1",
        )
        need(
            causal or self.objective.lm_coef == 0,
            f"objective.lm_coef={self.objective.lm_coef}: the auxiliary LM loss needs a causal backbone, and "
            f"{self.backbone.name} is {family}: set objective.lm_coef=0",
        )
        need(
            causal or self.peft.method != "prefix",
            f"peft=prefix needs a causal backbone, and {self.backbone.name} is {family}: use peft=lora",
        )
        need(
            self.train.candidates != "shared" or (causal and self.task.structure == "multiple_choice"),
            f"train.candidates=shared needs a causal backbone and a multiple-choice task, and {self.backbone.name} is "
            f"{family}, {self.task.name} {self.task.structure}: use train.candidates=auto",
        )

    def _check_text_to_text(self) -> None:
        name, family, objective = self.backbone.name, self.backbone.family, self.objective
        asked = objective.name == "text_to_text"
        need(
            asked == (family == "encoder_decoder"),
            f"objective=text_to_text goes with an encoder-decoder, and {name} is {family}: type backbone=t5_small"
            if asked
            else f"{name} is an encoder-decoder, which answers in words: leave out objective={objective.name}",
        )
        need(
            asked == (self.head.name == "text_to_text"),
            f"head={self.head.name} does not go with objective={objective.name} on {name}: leave out head=",
        )
        if not asked:
            return
        need(
            objective.loss == "auto" and not objective.class_weights,
            "objective.loss and objective.class_weights are a classifier's, and objective=text_to_text has the cross "
            "entropy of a label's words: leave them out",
        )
        need(
            (self.n_transfer, self.n_frozen, self.n_trained, self.n_reinit) == (None, None, None, 0)
            and self.optim.layer_decay == 1.0,
            f"n_transfer, n_frozen, n_trained, n_reinit and optim.layer_decay count the blocks of one stack, and "
            f"{name} has two: leave them out (backbone.weights=random trains from random weights)",
        )
        bounds = self.task.score_bounds
        need(
            not self.task.regression or (bounds is not None and all((bound * LEVELS).is_integer() for bound in bounds)),
            f"objective=text_to_text says a score to the nearest {1 / LEVELS:g}, got task.score_range="
            f"{self.task.score_range}: type task.score_range=[least,greatest] with bounds that are multiples of it",
        )

    def _check_twin(self) -> None:
        backbone = self.backbone
        need(
            self.ablation != "lstm" or bool(backbone.lstm),
            f"ablation=lstm needs an LSTM that was pretrained on {backbone.name}'s text: pretrain one "
            "(recipes/pretrain.py backbone=mini_lstm 'corpus.files=[...]'), and give its folder, "
            "backbone.lstm=DIR/model",
        )
        need(
            self.ablation != "lstm" or backbone.path is None,
            "ablation=lstm puts backbone.lstm in the backbone's place: leave backbone.path out",
        )

    def _check_transfer(self) -> None:
        need(
            self.n_transfer is None or self.n_transfer >= -1,
            f"n_transfer is -1 (nothing), 0 (embeddings) or a number of blocks, got {self.n_transfer}",
        )
        need(self.n_frozen is None or self.n_frozen >= 0, f"n_frozen is at least 0, got {self.n_frozen}")
        need(self.n_trained is None or self.n_trained >= 0, f"n_trained is at least 0, got {self.n_trained}")
        need(
            self.n_trained is None or self.n_frozen is None,
            "n_trained (from the top) and n_frozen (from below) both say what is trained: give one",
        )
        need(self.n_reinit >= 0, f"n_reinit is at least 0, got {self.n_reinit}")
        need(
            self.n_transfer is None or self.n_reinit == 0,
            "n_transfer and n_reinit both say which blocks start anew: give one",
        )
        frozen = self.n_frozen is not None or self.n_trained is not None
        changed = self.n_transfer is not None or self.n_reinit > 0 or frozen
        need(
            self.peft.method == "none" or not changed,
            f"peft={self.peft.method} trains an adapter on a whole pretrained backbone: leave out n_transfer, "
            "n_reinit, n_frozen and n_trained",
        )


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys to values, for a plain (nested) dict.

    >>> flat({"optim": {"lr": 1e-5}, "seed": 3})
    {'optim.lr': 1e-05, 'seed': 3}
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return found
