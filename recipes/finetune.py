"""Fine-tune one backbone on one task.

accelerate launch recipes/finetune.py task=mnli
accelerate launch recipes/finetune.py task=rte backbone=bert_base seed=3
accelerate launch recipes/finetune.py task=single data.files.train=train.csv data.files.validation=dev.csv
accelerate launch recipes/finetune.py task=sst2 data=sample backbone=tiny      # needs no network
"""

from trainers.config import FinetuneConfig
from trainers.launch import recipe


@recipe("finetune", FinetuneConfig)
def main(config: FinetuneConfig) -> None:
    """Fine-tune, and leave a run folder."""
    from trainers.finetune import finetune

    finetune(config)


if __name__ == "__main__":
    main()
