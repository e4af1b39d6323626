"""The config of recipes/zero_shot.py with objective=lm."""

from dataclasses import dataclass

from omegaconf import MISSING

from trainers.config.corpus import CorpusConfig
from trainers.config.need import check_run, need
from trainers.config.nodes import BackboneConfig, HeadConfig, ObjectiveConfig, OptimConfig, TrackingConfig


@dataclass
class PerplexityConfig:
    """Everything that the perplexity of a text under a backbone follows from; the text is the corpus's files."""

    backbone: BackboneConfig = MISSING
    corpus: CorpusConfig = MISSING
    n_ctx: int = 512  # tokens of a block; a block's first token is not predicted
    eval_tokens: int = 8192  # padded tokens in a batch
    seed: int = 0  # of the words that are masked (BERT), as pretraining draws them for its held-out text
    # no, bf16, fp16; null is what accelerate was told, else bf16 where the hardware multiplies in it
    mixed_precision: str | None = None
    run_dir: str = MISSING
    overwrite: bool = False  # set the finished run in run_dir aside and start anew
    tracking: TrackingConfig = MISSING
    objective: ObjectiveConfig = MISSING
    head: HeadConfig = MISSING  # a backbone's file chooses it and the optimizer for training; they are not read here
    optim: OptimConfig = MISSING

    def __post_init__(self) -> None:
        """Numbers in range, and a family that predicts words."""
        check_run(self)
        need(self.n_ctx >= 8, f"n_ctx is at least 8 tokens, got {self.n_ctx}")
        need(self.eval_tokens >= 1, f"eval_tokens is at least 1, got {self.eval_tokens}")
        need(
            self.backbone.family in ("causal", "bidirectional"),
            f"objective=lm scores running text, and {self.backbone.name} is {self.backbone.family}: type "
            "backbone=gpt1, gpt2 or bert_base",
        )
