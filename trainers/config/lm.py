"""The config of recipes/finetune.py with objective=lm."""

from dataclasses import dataclass

from omegaconf import MISSING

from trainers.config.corpus import CorpusConfig
from trainers.config.need import check_run, need
from trainers.config.nodes import (
    BackboneConfig,
    HeadConfig,
    ObjectiveConfig,
    OptimConfig,
    PeftConfig,
    TrackingConfig,
)
from trainers.config.pretrain import PretrainTrainConfig


@dataclass
class ContinuationsConfig:
    """Texts that the model writes after a piece of the held-out text, before and after it is trained."""

    number: int = 3  # pieces of held-out text; 0 writes none
    prompt_tokens: int = 32
    max_new_tokens: int = 48
    temperature: float = 1.0
    top_p: float = 0.95  # nucleus sampling (Holtzman et al. 2020, section 3.1)

    def __post_init__(self) -> None:
        """Numbers in range."""
        need(self.number >= 0, f"continuations.number is at least 0, got {self.number}")
        for name in ("prompt_tokens", "max_new_tokens"):
            need(getattr(self, name) >= 1, f"continuations.{name} is at least 1, got {getattr(self, name)}")
        need(self.temperature > 0, f"continuations.temperature is above 0, got {self.temperature}")
        need(0 < self.top_p <= 1, f"continuations.top_p is a probability, in (0, 1], got {self.top_p}")


@dataclass
class LmConfig:
    """Everything that fine-tuning a causal language model on running text follows from."""

    backbone: BackboneConfig = MISSING
    corpus: CorpusConfig = MISSING
    objective: ObjectiveConfig = MISSING
    optim: OptimConfig = MISSING
    train: PretrainTrainConfig = MISSING
    peft: PeftConfig = MISSING
    continuations: ContinuationsConfig = MISSING
    tracking: TrackingConfig = MISSING
    head: HeadConfig = MISSING  # a backbone's file chooses it for tasks; it is not read here
    seed: int = 0
    # no, bf16, fp16; null is what accelerate was told, else bf16 where the hardware multiplies in it
    mixed_precision: str | None = None
    run_dir: str = MISSING
    overwrite: bool = False  # set the finished run in run_dir aside and start anew

    def __post_init__(self) -> None:
        """What crosses nodes."""
        check_run(self)
        need(
            self.backbone.family == "causal",
            f"objective=lm predicts the next word, which needs a causal backbone, and {self.backbone.name} is "
            f"{self.backbone.family}: type backbone=gpt1, gpt2 or smollm2",
        )
        need(
            self.peft.method != "prefix",
            "peft=prefix: with objective=lm the adapter is merged into the weights that are saved, and a prefix is no "
            "change of weights: use peft=lora",
        )
