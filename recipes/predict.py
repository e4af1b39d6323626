"""A finished run on new text, or GLUE's submission from finished runs.

python recipes/predict.py run=outputs/finetune/sst2/gpt1/seed0 input=reviews.csv output=labels.jsonl
echo "a fine film" | python recipes/predict.py run=outputs/finetune/sst2/gpt1/seed0 input=-
python recipes/predict.py run=outputs/finetune/mnli/gpt1/seed0 split=test
python recipes/predict.py glue=outputs/glue.zip runs=outputs/finetune
"""

from trainers.config import PredictConfig
from trainers.launch import recipe


@recipe("predict", PredictConfig)
def main(config: PredictConfig) -> None:
    """Predict, and print or write what was predicted."""
    if config.glue is not None:
        from trainers.submission import submit

        submit(config)
    else:
        from trainers.predict import predict_new

        predict_new(config)


if __name__ == "__main__":
    main()
