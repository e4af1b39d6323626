"""The config of a search for settings."""

from dataclasses import dataclass

from trainers.config.need import need


@dataclass
class SearchConfig:
    """What a search is typed beside the settings of its runs."""

    space: str = "bayes"  # a file of conf/sweep/
    trials: int = 20  # that end well, over all commands that are the same search; a grid has its own number
    at_once: int = 1  # trials; more than one with a launcher that runs several

    def __post_init__(self) -> None:
        """Numbers in range."""
        need(self.trials >= 1, f"trials is a number of runs, at least 1, got {self.trials}")
        need(self.at_once >= 1, f"at_once is a number of runs, at least 1, got {self.at_once}")
