"""Memory and speed of an update with the auxiliary LM loss at GPT-1's vocabulary: logits in chunks, or all at once.

    python tests/benchmarks/lm_memory.py
    python tests/benchmarks/lm_memory.py --layers 6 --width 192 --dtype bf16

GPT-1's shape, or a smaller one, with random weights; each measurement in a fresh process. README.md says what is timed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from measuring import MIB, Peak, spread
from torch import Tensor
from torch.nn import functional

SIDES = ("in chunks", "all at once")
KEYS = {"peak_mib": 0, "step_mib": 0, "seconds": 2}  # with the decimal places that are shown


def all_at_once(
    states_RD: Tensor, weight_VD: Tensor, targets_R: Tensor, sequence_E: Tensor, n: int, row_E: Tensor | None = None
) -> Tensor:
    """What heads.chunked_loss gives, from one tensor of logits."""
    losses_R = functional.cross_entropy((states_RD @ weight_VD.T).float(), targets_R, reduction="none")
    counts = torch.bincount(sequence_E, minlength=n)
    return torch.zeros(n, device=losses_R.device).index_add(0, sequence_E, losses_R / counts[sequence_E])


def build(args: argparse.Namespace) -> tuple[Any, Any, torch.device]:
    """The model of recipes/finetune.py with random weights, and a batch of full rows."""
    from accelerate.utils import set_seed
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    from heads.classification import ClassificationHead
    from heads.collate import Row, collate, on_device
    from heads.layouts import Encoded
    from trainers.backbones.openai_gpt import use_fast_attention
    from trainers.model import TaskModel

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    set_seed(0)
    shape = {"n_layer": args.layers, "n_embd": args.width, "n_head": args.width // 64}
    config = OpenAIGPTConfig(**shape, embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0)
    full = OpenAIGPTLMHeadModel(config)
    use_fast_attention(full)
    model = TaskModel(full.base_model, ClassificationHead(config.n_embd, 2, 0.0), lm=True, pooler=False).to(device)
    ids = torch.randint(config.vocab_size, (args.batch, args.tokens)).tolist()
    rows = [Row(Encoded([], [one], [len(one) - 1], [len(one)]), n % 2) for n, one in enumerate(ids)]
    batch = collate(rows, pad_id=0)
    return model, on_device(batch, device), device


def side(args: argparse.Namespace) -> dict[str, float]:
    """Updates of one side: seconds of each, the peak beyond the loaded model, the loss; gradients go to args.grads."""
    from heads import language_model
    from trainers.accelerator import start_accelerator

    if args.side == "all at once":
        language_model.mean_cross_entropy = all_at_once
    start_accelerator("no", [], Path(args.grads).parent)  # as a run does, which has the allocator keep what is freed
    model, batch, device = build(args)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    dtype = {"fp32": None, "bf16": torch.bfloat16}[args.dtype]
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds, losses = [], []
    with Peak(device.type) as peak:
        for n in range(args.updates + 1):
            began = clock()
            with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
                found = model(batch)
                loss = functional.cross_entropy(found.logits.float(), batch.labels) + 0.5 * found.lm_loss.mean()
            loss.backward()
            if n == 0:
                torch.save([parameter.grad.cpu() for parameter in model.parameters()], args.grads)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            seconds.append(clock() - began)
    kept = 2 * sum(parameter.numel() * parameter.element_size() for parameter in model.parameters()) / MIB
    return {
        "seconds": statistics.median(seconds[1:]),
        "peak_mib": peak.grown,
        "step_mib": peak.grown - kept,  # without Adam's two moments, which stay
        "loss": losses[0],
    }


def run(args: argparse.Namespace, name: str, grads: Path) -> dict[str, float]:
    """A side in a process of its own."""
    command = [sys.executable, __file__, "--side", name, "--grads", str(grads)]
    for key in ("batch", "tokens", "layers", "width", "updates", "dtype"):
        command += [f"--{key}", str(getattr(args, key))]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])


def main() -> None:
    """The sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8, help="examples")
    parser.add_argument("--tokens", type=int, default=512, help="of each")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=768, help="of the states; its heads are 64 wide")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--updates", type=int, default=2, help="that are timed, after one that is not")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--grads", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(side(args)))
        return
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{n}.pt" for n, name in enumerate(SIDES)}
        for _ in range(args.rounds):
            for name in SIDES:
                found[name].append(run(args, name, files[name]))
                print(name, found[name][-1], flush=True)
        ours, whole = (torch.load(files[name]) for name in SIDES)
    norm = sum(float(grad.double().square().sum()) for grad in whole) ** 0.5
    differ = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(ours, whole, strict=True)) ** 0.5
    chunked, at_once = (found[name] for name in SIDES)
    ratios = [[b[key] / a[key] for a, b in zip(chunked, at_once, strict=True)] for key in KEYS]
    cells = [f"{args.batch} x {args.tokens}", args.dtype]
    for key, each in zip(KEYS, ratios, strict=True):
        cells += [*(spread([one[key] for one in found[name]], KEYS[key]) for name in SIDES), spread(each, 2)]
    cells += [f"{differ / norm:.1e}"]
    cells += [", ".join(f"{found[name][0]['loss']:.6f}" for name in SIDES)]
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
