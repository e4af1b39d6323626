"""Which head reads which structure's sequences."""

from torch import nn

from heads.classification import ClassificationHead
from heads.multiple_choice import MultipleChoiceHead
from heads.similarity import SimilarityHead

HEADS: dict[str, type[nn.Module]] = {
    "classification": ClassificationHead,
    "entailment": ClassificationHead,
    "similarity": SimilarityHead,
    "multiple_choice": MultipleChoiceHead,
}
