"""Pretrain a small language model on text.

accelerate launch -q recipes/pretrain.py backbone=mini_gpt corpus.files=[books.txt] corpus.valid_files=[held_out.txt]
accelerate launch -q recipes/pretrain.py backbone=mini_bert corpus.files=[a.txt,b.txt.gz] corpus.valid_files=[c.txt]
accelerate launch -q recipes/pretrain.py backbone=tiny corpus=sample train.n_ctx=64       # needs no network
"""

from typing import Any

from trainers.config import PretrainConfig
from trainers.launch import recipe


@recipe("pretrain", PretrainConfig)
def main(config: PretrainConfig) -> dict[str, Any]:
    """Pretrain, and leave a run folder with the model."""
    from trainers.pretrain import pretrain

    return pretrain(config)


if __name__ == "__main__":
    main()
