"""The dataclasses of every config.

Nothing here imports torch: a mistake in a config is found before anything heavy is loaded.
"""

from trainers.config.corpus import CorpusConfig
from trainers.config.finetune import SEEDS, SPEED_ONLY, FinetuneConfig, flat
from trainers.config.lm import ContinuationsConfig, LmConfig
from trainers.config.nodes import (
    ADAPTERS,
    LOSSES,
    OBJECTIVES,
    OPTIMIZERS,
    BackboneConfig,
    DataConfig,
    FilesConfig,
    HeadConfig,
    ObjectiveConfig,
    OptimConfig,
    PeftConfig,
    TrackingConfig,
    TrainConfig,
)
from trainers.config.perplexity import PerplexityConfig
from trainers.config.predict import PredictConfig
from trainers.config.pretrain import CurveConfig, PretrainConfig
from trainers.config.report import ReportConfig
from trainers.config.search import SearchConfig
from trainers.config.task import TaskConfig
from trainers.config.zero_shot import PromptConfig, PromptsConfig, ZeroShotConfig

TextConfig = PretrainConfig | LmConfig  # of a run on running text
RunConfig = FinetuneConfig | TextConfig | PerplexityConfig

__all__ = [
    "ADAPTERS",
    "LOSSES",
    "OBJECTIVES",
    "OPTIMIZERS",
    "SEEDS",
    "SPEED_ONLY",
    "BackboneConfig",
    "ContinuationsConfig",
    "CorpusConfig",
    "CurveConfig",
    "DataConfig",
    "FilesConfig",
    "FinetuneConfig",
    "HeadConfig",
    "LmConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "PeftConfig",
    "PerplexityConfig",
    "PredictConfig",
    "PretrainConfig",
    "PromptConfig",
    "PromptsConfig",
    "ReportConfig",
    "RunConfig",
    "SearchConfig",
    "TaskConfig",
    "TextConfig",
    "TrackingConfig",
    "TrainConfig",
    "ZeroShotConfig",
    "flat",
]
