"""The config of recipes/pretrain.py."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from trainers.choose import choose
from trainers.config.corpus import CorpusConfig
from trainers.config.need import check_run, need
from trainers.config.nodes import (
    BackboneConfig,
    DataConfig,
    HeadConfig,
    ObjectiveConfig,
    OptimConfig,
    TrackingConfig,
)


@dataclass
class PretrainTrainConfig:
    """How long and in what blocks; GPT-1, section 4.1, scaled: 64 blocks of 512 tokens an update there."""

    n_ctx: int = 512  # tokens of a block
    epochs: int = 1
    max_steps: int | None = None  # this many updates, in place of epochs
    batch_size: int = 16  # blocks an update, over all processes
    micro_batch_size: int | None = None  # blocks in memory at once, a process; null is batch_size / processes
    checkpoint_every: int = 250  # updates
    eval_every: int = 1000  # updates between held-out losses on eval_blocks
    eval_blocks: int = 64  # a seeded sample of the held-out blocks; all of them at the end
    eval_tokens: int = 8192  # padded tokens in a batch of evaluation
    compile: bool = False  # the backbone by torch.compile, as in fine-tuning

    def __post_init__(self) -> None:
        """Numbers in range."""
        need(self.n_ctx >= 8, f"train.n_ctx is at least 8 tokens, got {self.n_ctx}")
        for name in ("epochs", "max_steps", "batch_size", "micro_batch_size", "checkpoint_every", "eval_every"):
            value = getattr(self, name)
            need(value is None or value >= 1, f"train.{name} is at least 1, got {value}")
        for name in ("eval_blocks", "eval_tokens"):
            need(getattr(self, name) >= 1, f"train.{name} is at least 1, got {getattr(self, name)}")


@dataclass
class CurveConfig:
    """Zero-shot scores while pretraining (GPT-1, figure 2 right), after updates 1, 2, 4, 8, ... and the last."""

    tasks: list[str] = field(default_factory=list)  # files of conf/task/; empty: no curve
    limit: int = 500  # a seeded sample of this many rows of each task
    splits: dict[str, list[str]] = field(default_factory=dict)  # task -> splits, where not every labelled one
    tokens: int = 8192  # padded tokens in a batch

    def __post_init__(self) -> None:
        """Numbers in range."""
        need(self.limit >= 1, f"curve.limit is a number of rows, at least 1, got {self.limit}")


@dataclass
class PretrainConfig:
    """Everything that a pretraining run follows from."""

    backbone: BackboneConfig = MISSING
    corpus: CorpusConfig = MISSING
    data: DataConfig = MISSING  # where the curve's rows come from
    optim: OptimConfig = MISSING
    train: PretrainTrainConfig = MISSING
    curve: CurveConfig = MISSING
    tracking: TrackingConfig = MISSING
    head: HeadConfig = MISSING  # a backbone's file chooses it for fine-tuning; it is not read here, nor is objective
    objective: ObjectiveConfig = MISSING
    # what a table of learned positions starts from: normal, drawn as all weights are, or sinusoidal
    positions: str = "normal"
    # a folder with a pretrained model, which goes on with its weights and tokenizer; null draws new weights
    init_checkpoint: str | None = None
    tokenizer: str | None = None  # a folder with a tokenizer; null trains one on the corpus
    seed: int = 0
    # no, bf16, fp16; null is what accelerate was told, else bf16 where the hardware multiplies in it
    mixed_precision: str | None = None
    save_dtype: str = "float32"  # of the model's file: float32, float16 or bfloat16
    run_dir: str = MISSING
    overwrite: bool = False  # set the finished run in run_dir aside and start anew

    def __post_init__(self) -> None:
        """What crosses nodes."""
        check_run(self)
        choose(dict.fromkeys(("normal", "sinusoidal")), self.positions, what="start of positions", where="positions")
        need(
            self.init_checkpoint is None or self.tokenizer is None,
            f"init_checkpoint={self.init_checkpoint} goes on with its own tokenizer: leave tokenizer= out",
        )
        choose(dict.fromkeys(("float32", "float16", "bfloat16")), self.save_dtype, what="type", where="save_dtype")
        need(
            set(self.curve.splits) <= set(self.curve.tasks),
            f"curve.splits has {', '.join(self.curve.splits)}, and curve.tasks {', '.join(self.curve.tasks) or 'none'}",
        )

    @property
    def masked(self) -> bool:
        """Whether it is trained as BERT is, by masked words and next sentences, and not by the next word."""
        return self.backbone.family == "bidirectional"
