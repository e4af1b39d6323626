"""The papers' numbers by name, each with its source; in percent, as they are printed.

GPT-1 is Radford et al. 2018, Improving language understanding by generative pre-training; BERT is Devlin et al. 2019,
https://aclanthology.org/N19-1423. All but the figures' are of the test sets, GLUE's through its server.
"""

from typing import NamedTuple


class PaperModel(NamedTuple):
    """A paper's model: its name there, its file in conf/backbone/, and how many parameters it has."""

    name: str
    backbone: str
    parameters: str


class PaperNumber(NamedTuple):
    """One printed number; n_transfer is of figure 2 alone."""

    source: str
    model: PaperModel
    task: str
    split: str
    metric: str
    percent: float
    ablation: str = "none"
    n_transfer: int | None = None


GPT1 = PaperModel("GPT-1", "gpt1", "117 M")
BERT_BASE = PaperModel("BERT base", "bert_base", "110 M")
BERT_LARGE = PaperModel("BERT large", "bert_large", "340 M")

# Which of a task's numbers a paper prints; the second name of MNLI is its mismatched half.
NUMBER_OF = {
    "mnli": ("validation", "accuracy"),
    "mnli_mismatched": ("validation_mismatched", "accuracy"),
    "cola": ("validation", "matthews"),
    "mrpc": ("validation", "f1"),
    "stsb": ("validation", "pearson"),
    "qqp": ("validation", "f1"),
}

TABLES_2_TO_4 = {
    "table 2": {"mnli": 82.1, "mnli_mismatched": 81.4, "snli": 89.9, "scitail": 88.3, "qnli": 88.1, "rte": 56.0},
    "table 3": {"story_cloze": 86.5, "race_middle": 62.9, "race_high": 57.4, "race": 59.0},
    "table 4": {"cola": 45.4, "sst2": 91.3, "mrpc": 82.3, "stsb": 82.0, "qqp": 70.3},
}
# Its row without an ablation is tables 2 to 4 again; MNLI is the mean of its two halves, and left out.
TABLE_5 = {
    "no_pretraining": {"cola": 18.9, "sst2": 84.0, "mrpc": 79.4, "stsb": 30.9, "qqp": 65.5, "qnli": 71.2, "rte": 53.8},
    "no_aux_lm": {"cola": 47.9, "sst2": 92.0, "mrpc": 84.9, "stsb": 83.2, "qqp": 69.8, "qnli": 86.9, "rte": 54.4},
    "lstm": {"cola": 30.3, "sst2": 90.5, "mrpc": 83.2, "stsb": 71.8, "qqp": 68.1, "qnli": 81.1, "rte": 54.6},
}
# Read off the plot, to about two points; of the development sets.
FIGURE_2_LEFT = {0: {"race": 40.0, "mnli": 72.0}, 12: {"race": 60.0, "mnli": 82.0}}
# The right ends of figure 2 right, read off: between a guess (0) and the best supervised (1), by the task that is ours.
FIGURE_2_RIGHT = {"sst2": 0.68, "wsc273": 0.55, "dpr": 0.55, "cola": 0.43, "race": 0.25}

BERT_TABLE_1 = {
    BERT_BASE: {
        **{"mnli": 84.6, "mnli_mismatched": 83.4, "qqp": 71.2, "qnli": 90.5, "sst2": 93.5},
        **{"cola": 52.1, "stsb": 85.8, "mrpc": 88.9, "rte": 66.4},
    },
    BERT_LARGE: {
        **{"mnli": 86.7, "mnli_mismatched": 85.9, "qqp": 72.1, "qnli": 92.7, "sst2": 94.9},
        **{"cola": 60.5, "stsb": 86.5, "mrpc": 89.3, "rte": 70.1},
    },
}
GLUE_SCORES = {GPT1: ("GPT-1, table 4", 72.8)}  # BERT's average counts other columns, so it is not the GLUE score


def _number(source: str, model: PaperModel, name: str, percent: float, metric: str | None = None) -> PaperNumber:
    split, usual = NUMBER_OF.get(name, ("validation", "accuracy"))
    return PaperNumber(source, model, name.removesuffix("_mismatched"), split, metric or usual, percent)


def _all_numbers() -> list[PaperNumber]:
    found = [
        _number(f"GPT-1, {table}", GPT1, name, percent)
        for table, each in TABLES_2_TO_4.items()
        for name, percent in each.items()
    ]
    found += [
        _number("GPT-1, table 5", GPT1, name, percent)._replace(ablation=ablation)
        for ablation, each in TABLE_5.items()
        for name, percent in each.items()
    ]
    found += [
        _number("GPT-1, figure 2, read off", GPT1, name, percent)._replace(n_transfer=n_transfer)
        for n_transfer, each in FIGURE_2_LEFT.items()
        for name, percent in each.items()
    ]
    found += [
        _number("BERT, table 1", model, name, percent, "spearman" if name == "stsb" else None)
        for model, each in BERT_TABLE_1.items()
        for name, percent in each.items()
    ]
    return found


PAPER_NUMBERS = _all_numbers()


def paper_model(backbone: str, family: str) -> PaperModel:
    """The model that a backbone stands beside: itself, else GPT-1 for a causal one and BERT base for any other.

    >>> paper_model("bert_large", "bidirectional").name, paper_model("tiny", "causal").name
    ('BERT large', 'GPT-1')
    """
    named = {model.backbone: model for model in (GPT1, BERT_BASE, BERT_LARGE)}
    return named.get(backbone, GPT1 if family == "causal" else BERT_BASE)


def paper_numbers(
    model: PaperModel, task: str, ablation: str = "none", n_transfer: int | None = None
) -> list[PaperNumber]:
    """What a paper prints for a model, a task, an ablation and a number of transferred layers; often nothing.

    >>> [(one.source, one.percent) for one in paper_numbers(GPT1, "rte", "no_aux_lm")]
    [('GPT-1, table 5', 54.4)]
    """
    asked = (model, task, ablation, n_transfer)
    return [one for one in PAPER_NUMBERS if (one.model, one.task, one.ablation, one.n_transfer) == asked]
