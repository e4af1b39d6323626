"""The nodes of a config, one dataclass each: types, defaults, units and sources; each checks itself."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from heads.layouts import TRUNCATIONS
from trainers.choose import choose
from trainers.config.file_format import check_file_format
from trainers.config.need import check_seed, need
from trainers.schedules import SCHEDULES

# Names whose tables stand beside code that imports torch; a test holds them to those tables.
OPTIMIZERS: dict[str, None] = dict.fromkeys(("gpt1_adam", "adamw"))
LOSSES: dict[str, None] = dict.fromkeys(("auto", "cross_entropy", "soft_f1", "mse", "soft_score"))
OBJECTIVES: dict[str, None] = dict.fromkeys(("task", "lm", "text_to_text"))
ADAPTERS: dict[str, None] = dict.fromkeys(("none", "lora", "dora", "ia3", "prefix", "ln_tuning"))
CANDIDATES: dict[str, None] = dict.fromkeys(("auto", "shared", "separate"))


@dataclass
class FilesConfig:
    """The user's own files: .csv, .tsv, .json, .jsonl, .ndjson, .parquet, .xlsx; or a pattern (part-*.csv)."""

    train: str | None = None
    validation: str | None = None
    test: str | None = None


@dataclass
class DataConfig:
    """Where the rows come from: the hub, unless one of sample, root and files says otherwise."""

    sample: bool = False  # the examples that ship with ablatune
    root: str | None = None  # a folder laid out as the hub is: ROOT/owner/name
    files: FilesConfig = field(default_factory=FilesConfig)
    encoding: str | None = None  # of the text files: utf-8, cp1252, ...; null: UTF-8, or what the byte order mark says
    delimiter: str | None = None  # of CSV and TSV: comma, semicolon, tab, bar or a character; null: from the content
    quoting: str = "auto"  # of CSV and TSV: standard (""), backslash (\\"), none; auto: from the content
    validation_fraction: float = 0.1  # of train, where the source has no validation split
    folds: int | None = None  # cross-validation: as many runs, each of which holds out another part of train
    fold: int | None = None  # the part that this run holds out, 0 .. folds - 1; data.folds alone runs them all
    split_seed: int = 0  # of the validation split or the folds, and of samples of rows
    train_rows: int | None = None  # a seeded sample of train
    eval_rows: int | None = None  # a seeded sample of each other split
    on_empty: str = "drop"  # rows without any text: drop leaves them out and counts them, error stops
    # what is kept of a text that does not fit head.n_ctx: its head, its tail, or both (half of the tokens each)
    truncation: str = "head"
    cleaning: str = "none"  # gpt1: ftfy, punctuation, spaCy's words, as text_utils.py (extra: clean)

    def __post_init__(self) -> None:
        """One source only."""
        given = [name for name, on in self.sources().items() if on]
        need(
            len(given) < 2,
            f"data.{' and data.'.join(given)} both say where the rows are: give one of data=sample, data.root and "
            "data.files.*",
        )
        need(
            0 < self.validation_fraction < 1,
            f"data.validation_fraction is a share of train, in (0, 1), got {self.validation_fraction}",
        )
        check_seed("data.split_seed", self.split_seed)
        need(self.folds is None or self.folds >= 2, f"data.folds is at least 2, got {self.folds}")
        need(
            self.fold is None or (self.folds is not None and 0 <= self.fold < self.folds),
            f"data.fold is one of 0 .. data.folds - 1, got data.fold={self.fold} and data.folds={self.folds}",
        )
        choose({"none": "", "gpt1": ""}, self.cleaning, what="cleaning", where="data.cleaning")
        choose(dict.fromkeys(TRUNCATIONS), self.truncation, what="truncation", where="data.truncation")
        choose({"drop": "", "error": ""}, self.on_empty, what="rule", where="data.on_empty")
        for name in ("train_rows", "eval_rows"):
            rows = getattr(self, name)
            need(rows is None or rows > 0, f"data.{name} is a number of rows, at least 1, got {rows}")
        check_file_format(self.encoding, self.delimiter, self.quoting, "data.")
        of_files = self.encoding is None and self.delimiter is None and self.quoting == "auto"
        need(
            of_files or bool(self.files.train),
            "data.encoding, data.delimiter and data.quoting are of your own files: give data.files.train too",
        )
        need(
            bool(self.files.train) or not (self.files.validation or self.files.test),
            "data.files.validation and data.files.test go with data.files.train: give that too",
        )

    def sources(self) -> dict[str, bool]:
        """The sources other than the hub, and whether each is asked for."""
        return {"sample": self.sample, "root": self.root is not None, "files.train": self.files.train is not None}


@dataclass
class BackboneConfig:
    """The pretrained network under the head; conf/backbone/*.yaml."""

    name: str = MISSING
    hub: str = MISSING  # model id on the Hugging Face hub, or a folder
    path: str | None = None  # local weights for it, in place of the hub's
    revision: str | None = None  # a branch, tag or commit of the hub's repository
    family: str = MISSING  # causal (GPT), bidirectional (BERT) or encoder_decoder (T5)
    weights: str = "pretrained"  # random: built from its config alone
    # eager, sdpa, flash_attention_2, ...; null lets transformers choose (GPT-1: sdpa, trainers/backbones/openai_gpt.py)
    attention: str | None = None
    dropout: float | None = None  # all of its dropouts (embedding, attention, residual); null keeps its own
    trust_remote_code: bool = False
    lstm: str = ""  # an LSTM pretrained on the same text, as hub names a model: what ablation=lstm puts in its place

    def __post_init__(self) -> None:
        """Names that exist."""
        where = f"conf/backbone/{self.name}.yaml"
        choose(dict.fromkeys(("causal", "bidirectional", "encoder_decoder")), self.family, what="family", where=where)
        choose({"pretrained": "", "random": ""}, self.weights, what="kind of weights", where=where)
        need(
            self.dropout is None or 0 <= self.dropout < 1,
            f"backbone.dropout is a probability, in [0, 1), got {self.dropout}",
        )


@dataclass
class HeadConfig:
    """What stands around the backbone: layout before it, readout and head after it; conf/head/*.yaml."""

    name: str = MISSING  # gpt1 (start, delimiter, extract), cls ([CLS], [SEP]) or text_to_text (T5: none at all)
    both_orders: bool = MISSING  # similarity reads both orders (GPT-1) or one (BERT)
    n_ctx: int | None = None  # longest sequence, in tokens; null is the backbone's own limit
    clf_pdrop: float = 0.1  # dropout before the classifier

    def __post_init__(self) -> None:
        """Names that exist, numbers in range."""
        choose(dict.fromkeys(("gpt1", "cls", "text_to_text")), self.name, what="head", where="head.name")
        need(0 <= self.clf_pdrop < 1, f"head.clf_pdrop is a probability, in [0, 1), got {self.clf_pdrop}")
        need(self.n_ctx is None or self.n_ctx >= 8, f"head.n_ctx is at least 8 tokens, got {self.n_ctx}")


@dataclass
class ObjectiveConfig:
    """What is trained for, conf/objective/*.yaml, and a task's loss: L3 = L2 + lm_coef * L1 (GPT-1, equation 5)."""

    name: str = "task"  # task; lm: the next word of running text (LmConfig); text_to_text: a label's words (T5)
    lm_coef: float = 0.0  # weight of the auxiliary LM loss
    loss: str = "auto"  # of the task: cross_entropy, soft_f1, mse, soft_score; auto is by the label
    class_weights: dict[str, float] = field(default_factory=dict)  # label name -> weight; 1 where not given

    def __post_init__(self) -> None:
        """Names that exist, numbers in range."""
        choose(OBJECTIVES, self.name, what="objective", where="objective.name")
        choose(LOSSES, self.loss, what="loss", where="objective.loss")
        need(self.lm_coef >= 0, f"objective.lm_coef is a weight, at least 0, got {self.lm_coef}")
        for name, weight in self.class_weights.items():
            need(weight >= 0, f"objective.class_weights.{name} is a weight, at least 0, got {weight}")


@dataclass
class OptimConfig:
    """Optimizer and learning-rate schedule; conf/optim/*.yaml."""

    name: str = MISSING
    lr: float = MISSING  # peak learning rate
    schedule: str = MISSING
    warmup: float = MISSING  # share of all updates, in [0, 1)
    weight_decay: float = 0.01  # on matrices only: vectors do not decay (opt.py: vector_l2 is off)
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    max_grad_norm: float = 1.0  # global norm; clipped once an update
    layer_decay: float = 1.0  # learning rate of each layer = this times that of the layer above

    def __post_init__(self) -> None:
        """Names that exist, numbers in range."""
        choose(OPTIMIZERS, self.name, what="optimizer", where="optim.name")
        choose(SCHEDULES, self.schedule, what="schedule", where="optim.schedule")
        need(
            0 <= self.warmup < 1,
            f"optim.warmup is a share of all updates, in [0, 1), got {self.warmup}: for a number of updates, divide it "
            "by the total",
        )
        need(
            0 <= self.beta1 < 1 and 0 <= self.beta2 < 1,
            f"optim.beta1 and beta2 are in [0, 1), got {self.beta1}, {self.beta2}",
        )
        need(self.lr > 0, f"optim.lr is a learning rate, above 0, got {self.lr}")
        need(self.weight_decay >= 0, f"optim.weight_decay is a rate, at least 0, got {self.weight_decay}")
        need(self.eps >= 0, f"optim.eps is at least 0, got {self.eps}")
        need(self.max_grad_norm > 0, f"optim.max_grad_norm is above 0, got {self.max_grad_norm}")
        need(0 < self.layer_decay <= 1, f"optim.layer_decay is in (0, 1], got {self.layer_decay}")


@dataclass
class TrainConfig:
    """How long and in what batches; the defaults are GPT-1's (section 4.1) and BERT's (appendix A.3)."""

    epochs: int = 3
    max_steps: int | None = None  # this many updates, in place of epochs
    batch_size: int = 32  # examples an update, over all processes
    micro_batch_size: int | None = None  # examples in memory at once, a process; null is batch_size / processes
    checkpoint_every: int | None = None  # updates; null is at the end of each epoch
    # Updates of like length, within shuffled windows: faster, and worse on short texts (README, quality). Micro-batches
    # are of like length either way, which changes no number.
    group_by_length: bool = False
    select: str = "best"  # the model kept: of the epoch with the best primary metric, or of the last
    patience: int | None = None  # stop after this many epochs without a better primary metric
    eval_tokens: int = 8192  # padded tokens in a batch of evaluation; of a row without padding at most 2,048
    eval_train_rows: int = 0  # train rows, a seeded sample, that are scored too, after each epoch; no number changes
    # A multiple-choice example's candidates share a row (heads/tree.py), or have one each; auto shares where the
    # backbone can. About three times faster; the same losses, but that dropout is drawn once for what they share.
    candidates: str = "auto"
    # The backbone by torch.compile, once for rows of all lengths: for GPUs. On a CPU it pays back only after minutes.
    # Same losses, with another draw of dropout.
    compile: bool = False
    save_model: bool = True  # false deletes the weights when the run has finished: results and predictions stay

    def __post_init__(self) -> None:
        """Names that exist, numbers in range."""
        choose({"best": "", "last": ""}, self.select, what="rule", where="train.select")
        choose(CANDIDATES, self.candidates, what="layout", where="train.candidates")
        for name in ("epochs", "max_steps", "batch_size", "micro_batch_size", "checkpoint_every", "patience"):
            value = getattr(self, name)
            need(value is None or value >= 1, f"train.{name} is at least 1, got {value}")
        need(self.eval_tokens >= 1, f"train.eval_tokens is at least 1, got {self.eval_tokens}")
        need(self.eval_train_rows >= 0, f"train.eval_train_rows is at least 0, got {self.eval_train_rows}")


@dataclass
class PeftConfig:
    """Parameter-efficient fine-tuning through peft; conf/peft/*.yaml."""

    method: str = "none"
    r: int = 8  # rank (LoRA, DoRA)
    alpha: int = 16  # LoRA's scale is alpha / r
    dropout: float = 0.0
    target_modules: list[str] | None = None  # names of modules; null is peft's choice for the backbone
    n_virtual_tokens: int = 16  # length of the prefix

    def __post_init__(self) -> None:
        """A method that exists."""
        choose(ADAPTERS, self.method, what="method", where="peft.method")
        need(self.r >= 1, f"peft.r is a rank, at least 1, got {self.r}")
        need(self.alpha >= 1, f"peft.alpha scales the adapter by alpha / r, at least 1, got {self.alpha}")
        need(0 <= self.dropout < 1, f"peft.dropout is a probability, in [0, 1), got {self.dropout}")
        need(self.n_virtual_tokens >= 1, f"peft.n_virtual_tokens is at least 1, got {self.n_virtual_tokens}")


@dataclass
class TrackingConfig:
    """Where metrics go besides log.jsonl, through Accelerate's trackers; conf/tracking/*.yaml."""

    trackers: list[str] = field(default_factory=list)  # wandb, tensorboard
    project: str = "ablatune"
    mode: str | None = None  # W&B: online, offline or disabled; null is online with a key, else offline

    def __post_init__(self) -> None:
        """A mode that exists."""
        modes = {"online": "", "offline": "", "disabled": ""}
        if self.mode is not None:
            choose(modes, self.mode, what="mode", where="tracking.mode")
