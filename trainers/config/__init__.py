"""The dataclasses of every config.

Nothing here imports torch: a mistake in a config is found before anything heavy is loaded.
"""

from trainers.config.corpus import CorpusConfig
from trainers.config.finetune import SPEED_ONLY, FinetuneConfig, flat
from trainers.config.nodes import (
    ADAPTERS,
    LOSSES,
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
from trainers.config.predict import PredictConfig
from trainers.config.pretrain import CurveConfig, PretrainConfig
from trainers.config.report import ReportConfig
from trainers.config.task import TaskConfig
from trainers.config.zero_shot import PromptConfig, PromptsConfig, ZeroShotConfig

__all__ = [
    "ADAPTERS",
    "LOSSES",
    "OPTIMIZERS",
    "SPEED_ONLY",
    "BackboneConfig",
    "CorpusConfig",
    "CurveConfig",
    "DataConfig",
    "FilesConfig",
    "FinetuneConfig",
    "HeadConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "PeftConfig",
    "PredictConfig",
    "PretrainConfig",
    "PromptConfig",
    "PromptsConfig",
    "ReportConfig",
    "TaskConfig",
    "TrackingConfig",
    "TrainConfig",
    "ZeroShotConfig",
    "flat",
]
