"""Search for settings of recipes/finetune.py, by Optuna, over the space of a file of conf/sweep/.

python recipes/search.py task=rte backbone=minilm                              # space=bayes trials=20
python recipes/search.py task=rte backbone=bert_base space=grid
python recipes/search.py task=sst2 data=sample backbone=tiny trials=4          # needs no network
python recipes/search.py task=rte backbone=minilm at_once=4 hydra/launcher=joblib
"""

from typing import Any

from trainers.config import FinetuneConfig
from trainers.launch import recipe


@recipe("finetune", FinetuneConfig, search=True)
def main(config: FinetuneConfig) -> dict[str, Any]:
    """Fine-tune with the settings of a trial, and leave a run folder."""
    from trainers.finetune import finetune

    return finetune(config)


if __name__ == "__main__":
    main()
