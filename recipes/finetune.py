"""Fine-tune one backbone on one task, or on running text.

accelerate launch -q recipes/finetune.py task=mnli
accelerate launch -q recipes/finetune.py task=rte backbone=bert_base seed=3
accelerate launch -q recipes/finetune.py task=single data.files.train=train.csv data.files.validation=dev.csv
accelerate launch -q recipes/finetune.py task=sst2 data=sample backbone=tiny      # needs no network
accelerate launch -q recipes/finetune.py objective=lm backbone=smollm2 corpus.files=[mine.txt]
"""

from typing import Any

from trainers.config import FinetuneConfig, LmConfig
from trainers.launch import recipe


@recipe("finetune", FinetuneConfig, objectives={"lm": LmConfig})
def main(config: FinetuneConfig | LmConfig) -> dict[str, Any]:
    """Fine-tune, and leave a run folder."""
    if isinstance(config, LmConfig):
        from trainers.finetune_lm import finetune_lm

        return finetune_lm(config)
    if config.check:
        from trainers.check import check

        return check(config)
    from trainers.finetune import finetune

    return finetune(config)


if __name__ == "__main__":
    main()
