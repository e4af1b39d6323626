"""Fine-tune with transformers' own Trainer, the peer that ablatune's quality is held against.

    python tests/quality/peer.py --model DIR_OR_ID --data DIR --out peer.jsonl cola mrpc rte stsb

Every cell (task, seed) is one line of the output; a cell that is there already is skipped.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from datasets import load_dataset
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)

TEXTS = {
    "cola": ("sentence",),
    "mrpc": ("sentence1", "sentence2"),
    "rte": ("sentence1", "sentence2"),
    "stsb": ("sentence1", "sentence2"),
}
EPOCHS = {"cola": 2, "mrpc": 3, "rte": 3, "stsb": 2}


def scores(task: str, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The GLUE metrics of a task, straight from scikit-learn and scipy."""
    if task == "stsb":
        values = logits.squeeze(-1)
        return {"pearson": pearsonr(values, labels)[0], "spearman": spearmanr(values, labels)[0]}
    predicted = logits.argmax(-1)
    if task == "cola":
        return {"matthews": matthews_corrcoef(labels, predicted)}
    found = {"accuracy": accuracy_score(labels, predicted)}
    return found | ({"f1": f1_score(labels, predicted)} if task == "mrpc" else {})


def fine_tune(task: str, seed: int, args: argparse.Namespace) -> dict:
    """One cell: the rows, hyperparameters and precision that tests/quality/README.md states."""
    set_seed(seed)
    rows = load_dataset(f"{args.data}/nyu-mll/glue", task)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    encoded = rows.map(
        lambda batch: tokenizer(*(batch[c] for c in TEXTS[task]), truncation=True, max_length=128),
        batched=True,
        remove_columns=[c for c in rows["train"].column_names if c != "label"],
    )
    model = AutoModelForSequenceClassification.from_pretrained(args.model, num_labels=1 if task == "stsb" else 2)
    settings = TrainingArguments(
        output_dir=args.work,
        seed=seed,
        num_train_epochs=EPOCHS[task],
        per_device_train_batch_size=32,
        per_device_eval_batch_size=64,
        learning_rate=5e-5,
        weight_decay=0.01,
        adam_epsilon=1e-6,
        lr_scheduler_type="linear",
        warmup_steps=0.1,
        bf16=True,
        use_cpu=True,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=100,
    )
    trainer = Trainer(model, settings, train_dataset=encoded["train"], data_collator=DataCollatorWithPadding(tokenizer))
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    found = trainer.predict(encoded["validation"])
    measured = {name: float(value) for name, value in scores(task, found.predictions, found.label_ids).items()}
    return {"task": task, "seed": seed, **measured, "train_seconds": seconds, "updates": trainer.state.global_step}


def main() -> None:
    """Run the cells that are not in the output yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=sorted(TEXTS))
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--work", default="outputs/peer")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    args = parser.parse_args()
    done = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    for task in args.tasks:
        for seed in args.seeds:
            if any((cell["task"], cell["seed"]) == (task, seed) for cell in done):
                continue
            with args.out.open("a") as out:
                out.write(json.dumps(fine_tune(task, seed, args)) + "\n")


if __name__ == "__main__":
    main()
