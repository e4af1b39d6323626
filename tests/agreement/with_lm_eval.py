"""Hold zero-shot scores against those of an independent harness, lm-eval, on the same rows, prompts and weights.

    pip install -e ".[agreement]"
    python tests/agreement/with_lm_eval.py --model DIR --data DIR --output agreement.json sst2 story_cloze race

Prints a table, and exits with 1 where fewer than 99.8 % of the choices are the same. README.md says what is compared.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # before transformers and datasets are imported, which read these once
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
sys.path.append(str(Path(__file__).parent))  # where questions.py is, however this file is imported

import numpy as np
import torch
from questions import DELIMITER, Question, add_arguments, ask, compose, draw, read

from heads.example import Example
from trainers.accelerator import start_accelerator
from trainers.backbones.load import load_tokenizer, n_positions
from trainers.config import FinetuneConfig, TaskConfig
from trainers.zero_shot.answers import Asker
from trainers.zero_shot.method import load_scored_model
from trainers.zero_shot.scoring import Scorer

BAR = 0.998
ALL = ("sst2", "story_cloze")  # every validation row; of other tasks --rows
NORMALIZATIONS = ("sum", "token_mean", "char_mean")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

Scores = dict[str, np.ndarray]  # by normalization, (N, C); minus infinity where there is no such candidate


def score_ours(config: FinetuneConfig, task: TaskConfig, examples: list[Example], folder: Path) -> Scores:
    """Our scores, by the functions that recipes/zero_shot.py calls."""
    accelerator = start_accelerator(config.mixed_precision, [], folder)
    tokenizer, model = load_tokenizer(config.backbone), load_scored_model(config, accelerator)
    scorer = Scorer(model, tokenizer.pad_token_id or 0, layout=config.zero_shot.candidates)
    n_ctx = n_positions(model.base_model)
    asker = Asker(accelerator, scorer, tokenizer, n_ctx, "likelihood", task, config.zero_shot.tokens)
    scores, n_cut = asker.scores(task.prompts.likelihood[0], examples, f"ours {task.name}")
    if n_cut:
        raise SystemExit(f"{task.name}: {n_cut} prompts are longer than the model takes, which lm-eval cuts elsewhere")
    return {name: scores[name] for name in NORMALIZATIONS}


def as_task(name: str, questions: Sequence[Question], folder: Path) -> Any:
    """The questions as a task of lm-eval's own, read from a file, as a user's task would be."""
    from lm_eval.api.task import ConfigurableTask

    file = folder / f"{name}.jsonl"
    file.write_text("".join(f"{json.dumps(asdict(question))}\n" for question in questions))
    return ConfigurableTask(
        config={
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(folder / "cache")},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "context",
            "doc_to_choice": "choices",
            "doc_to_target": "label",
            "target_delimiter": DELIMITER,
            "metric_list": [
                {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in ("acc", "acc_norm")
            ],
        }
    )


def score_theirs(
    name: str, questions: Sequence[Question], args: argparse.Namespace, folder: Path
) -> tuple[Scores, dict[str, float]]:
    """lm-eval's scores, and the accuracies that it reports itself: acc is by sums, acc_norm a character."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    lm = HFLM(pretrained=str(args.model), dtype="float32", batch_size=args.batch_size, device=DEVICE)
    found = lm_eval.simple_evaluate(
        lm,
        tasks=[as_task(name, questions, folder)],
        log_samples=True,
        bootstrap_iters=0,
        task_manager=TaskManager(include_defaults=False),
    )
    assert found is not None
    samples = sorted(found["samples"][name], key=lambda sample: sample["doc_id"])
    for sample, question in zip(samples, questions, strict=True):
        asked = [(question.context, f"{DELIMITER}{choice}") for choice in question.choices]
        if [tuple(arguments) for arguments in sample["arguments"]] != asked:
            raise SystemExit(f"lm-eval asked something else than we did: {sample['arguments']}")
    sums = table([[response[0] for response in sample["filtered_resps"]] for sample in samples], -np.inf)
    tokens = [[len(lm._encode_pair(q.context, f"{DELIMITER}{c}")[1]) for c in q.choices] for q in questions]
    chars = [list(map(len, question.choices)) for question in questions]
    scores = {"sum": sums, "token_mean": sums / table(tokens, 1), "char_mean": sums / table(chars, 1)}
    reported = found["results"][name]
    return scores, {"sum": reported["acc,none"], "char_mean": reported["acc_norm,none"]}


def table(rows: Sequence[Sequence[float]], absent: float) -> np.ndarray:
    """Rows of different lengths as one array."""
    found = np.full((len(rows), max(map(len, rows))), absent)
    for n, row in enumerate(rows):
        found[n, : len(row)] = row
    return found


def differing(name: str, ours: Scores, theirs: Scores, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """The rows where the choices are not the same, with what each harness gives both choices; a tie shows as such."""
    mine, other = ours[name].argmax(axis=1), theirs[name].argmax(axis=1)
    return [
        {
            "guid": examples[i].guid,
            "normalization": name,
            "choices": [int(mine[i]), int(other[i])],
            "ours": ours[name][i, [mine[i], other[i]]].tolist(),
            "lm_eval": theirs[name][i, [mine[i], other[i]]].tolist(),
        }
        for i in np.flatnonzero(mine != other)
    ]


def compare(ours: Scores, theirs: Scores, reported: dict[str, float], examples: Sequence[Example]) -> dict[str, Any]:
    """Everything that is said of a task."""
    true = np.array([example.label for example in examples])
    real = np.isfinite(ours["sum"])
    assert (real == np.isfinite(theirs["sum"])).all()
    n_tokens = [np.round(scores["sum"][real] / scores["token_mean"][real]) for scores in (ours, theirs)]
    found: dict[str, Any] = {
        "rows": len(examples),
        "candidates": int(real.sum()),
        "tokenised_differently": int((n_tokens[0] != n_tokens[1]).sum()),
        "largest_difference_of_a_sum": float(np.abs(ours["sum"][real] - theirs["sum"][real]).max()),
        "same_choice": {},
        "accuracy": {},
        "differing": [],
    }
    for name in NORMALIZATIONS:
        choices = [scores[name].argmax(axis=1) for scores in (ours, theirs)]
        accuracies = [float((choice == true).mean()) for choice in choices]
        assert abs(reported.get(name, accuracies[1]) - accuracies[1]) < 1e-9, "not what lm-eval reports"
        found["same_choice"][name] = float((choices[0] == choices[1]).mean())
        found["accuracy"][name] = {"ours": accuracies[0], "lm_eval": accuracies[1]}
        found["differing"] += differing(name, ours, theirs, examples)
    return found


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """One task, by both."""
    config = compose(name, args)
    task, examples = read(config)
    examples = draw(examples, args.limit or (None if name in ALL else args.rows), args.seed)
    questions = [ask(task, task.prompts.likelihood[0], example) for example in examples]
    with tempfile.TemporaryDirectory() as folder:
        ours = score_ours(config, task, examples, Path(folder))
        theirs, reported = score_theirs(name, questions, args, Path(folder))
    return compare(ours, theirs, reported, examples)


def shown(found: dict[str, dict[str, Any]]) -> str:
    """The results as a Markdown table, then the rows that differ."""
    lines = [
        "| task | rows | normalization | same choice | accuracy, ours | lm-eval | largest difference of a sum |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, one in found.items():
        for name in NORMALIZATIONS:
            accuracy = one["accuracy"][name]
            lines.append(
                f"| {task} | {one['rows']} | {name} | {100 * one['same_choice'][name]:.2f} % | "
                f"{100 * accuracy['ours']:.2f} | {100 * accuracy['lm_eval']:.2f} | "
                f"{one['largest_difference_of_a_sum']:.1e} |"
            )
    for task, one in found.items():
        lines.append(f"\n{task}: {one['tokenised_differently']} of {one['candidates']} candidates of other lengths")
        lines += [
            f"{row['guid']}, {row['normalization']}: ours chooses {row['choices'][0]} ({row['ours'][0]:.6f} over "
            f"{row['ours'][1]:.6f}), lm-eval {row['choices'][1]} ({row['lm_eval'][1]:.6f} over {row['lm_eval'][0]:.6f})"
            for row in one["differing"]
        ]
    return "\n".join(lines)


def main() -> None:
    """Compare task after task."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", metavar="TASK", help="a task of conf/task with candidates and prompts")
    add_arguments(parser)
    parser.add_argument("--rows", type=int, default=500, help=f"rows of a task that is not one of {', '.join(ALL)}")
    parser.add_argument("--limit", type=int, help="rows of every task, for a quick look")
    parser.add_argument("--batch-size", type=int, default=8, help="lm-eval's")
    parser.add_argument("--output", type=Path, help="a JSON file")
    args = parser.parse_args()
    found = {name: run(name, args) for name in args.tasks}
    print(shown(found))
    if args.output:
        args.output.write_text(json.dumps(found, indent=2) + "\n")
    if min(share for one in found.values() for share in one["same_choice"].values()) < BAR:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
