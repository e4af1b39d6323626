"""Score a task with a backbone as it is, without training.

accelerate launch -q recipes/zero_shot.py task=sst2 backbone=smollm2
accelerate launch -q recipes/zero_shot.py task=race_middle backbone=gpt1 zero_shot=heuristic zero_shot.limit=1000
accelerate launch -q recipes/zero_shot.py task=mrpc backbone=bert_base zero_shot=fill_mask
accelerate launch -q recipes/zero_shot.py -m task=sst2,cola,rte backbone=smollm2,gpt2 zero_shot=likelihood
accelerate launch -q recipes/zero_shot.py objective=lm backbone=mini_gpt corpus.files=[mine.txt]    # its perplexity
"""

from typing import Any

from trainers.config import FinetuneConfig, PerplexityConfig
from trainers.launch import recipe


@recipe("zero_shot", FinetuneConfig, objectives={"lm": PerplexityConfig})
def main(config: FinetuneConfig | PerplexityConfig) -> dict[str, Any]:
    """Score, and leave a run folder."""
    if isinstance(config, PerplexityConfig):
        from trainers.perplexity import perplexity

        return perplexity(config)
    from trainers.zero_shot.run import zero_shot

    return zero_shot(config)


if __name__ == "__main__":
    main()
