"""Accelerate's modes: what would train another model is refused or corrected before rows are read."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from accelerate.utils.dataclasses import FullyShardedDataParallelPlugin
from filelock import FileLock

from heads.errors import InputError
from trainers.accelerator import start_accelerator
from trainers.parallelism import check_parallelism, configure_deepspeed, no_gradients
from trainers.studies import gpus
from trainers.studies.launchers import runs_side_by_side

ROOT = Path(__file__).parents[2]


def accelerator(kind=DistributedType.NO, fsdp=None, deepspeed=None, processes=2, parallelism=None):
    state = SimpleNamespace(fsdp_plugin=fsdp, deepspeed_plugin=deepspeed)
    return SimpleNamespace(distributed_type=kind, state=state, num_processes=processes, parallelism_config=parallelism)


def fsdp(version, monkeypatch):
    monkeypatch.setenv("FSDP_VERSION", str(version))
    return accelerator(DistributedType.FSDP, fsdp=FullyShardedDataParallelPlugin())


@pytest.mark.filterwarnings("ignore")  # accelerate's own, of FSDP 1
def test_fsdp_1_is_refused(compose, monkeypatch):
    with pytest.raises(InputError, match="fsdp_version: 2"):
        check_parallelism(fsdp(1, monkeypatch), compose("task=sst2", "backbone=tiny"))


@pytest.mark.parametrize(
    ("typed", "refused"),
    [((), None), (("peft=lora",), "peft=lora with head=gpt1"), (("peft=prefix",), "peft=prefix"),
     (("backbone=tiny_bert", "peft=lora"), None)],
)  # fmt: skip
def test_fsdp_2_is_refused_where_it_could_not_save(compose, monkeypatch, typed, refused):
    config = compose("task=sst2", "backbone=tiny", *typed)
    if refused is None:
        check_parallelism(fsdp(2, monkeypatch), config)
    else:
        with pytest.raises(InputError, match=refused):
            check_parallelism(fsdp(2, monkeypatch), config)


@pytest.mark.parametrize(("stage", "fits"), [(1, True), (2, True), (3, False)])
def test_zero_3_is_refused(compose, stage, fits):
    asked = accelerator(DistributedType.DEEPSPEED, deepspeed=SimpleNamespace(zero_stage=stage))
    config = compose("task=sst2", "backbone=tiny")
    if fits:
        check_parallelism(asked, config)
    else:
        with pytest.raises(InputError, match="zero_stage: 2"):
            check_parallelism(asked, config)


def test_other_modes_are_refused(compose):
    config = compose("task=sst2", "backbone=tiny")
    check_parallelism(accelerator(DistributedType.MULTI_GPU), config)
    with pytest.raises(InputError, match="MEGATRON_LM is not supported"):
        check_parallelism(accelerator(DistributedType.MEGATRON_LM), config)
    with pytest.raises(InputError, match="tensor and context parallelism"):
        check_parallelism(accelerator(parallelism=object()), config)


def test_deepspeed_has_the_run_s_batch_and_clipping():
    plugin = SimpleNamespace(deepspeed_config={
        "gradient_accumulation_steps": 4, "gradient_clipping": 1.0, "train_batch_size": 64, "zero_optimization": {},
    })  # fmt: skip
    configure_deepspeed(accelerator(deepspeed=plugin), 8, 0.3)
    assert plugin.deepspeed_config == {
        "gradient_accumulation_steps": 1, "gradient_clipping": 0.3, "train_batch_size": 16,
        "train_micro_batch_size_per_gpu": 8, "zero_optimization": {},
    }  # fmt: skip
    configure_deepspeed(accelerator(), 8, 0.3)  # without DeepSpeed there is nothing to do


def test_accelerate_s_gradient_accumulation_does_not_divide_gradients(monkeypatch, tmp_path):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    started = start_accelerator("no", [], tmp_path)
    weight = torch.nn.Parameter(torch.ones(1))
    started.backward((3 * weight).sum())
    assert weight.grad.item() == 3


def test_fsdp_evaluates_without_inference_tensors():
    with no_gradients(accelerator(DistributedType.FSDP)):
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
    with no_gradients(accelerator()):
        assert torch.is_inference_mode_enabled()


def test_a_tied_lm_head_is_not_saved_beside_the_embeddings(tiny_model, tmp_path):
    """Under FSDP 2 the LM head's own parameter has the weights from before the training."""
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    from trainers.saving import _save_backbone

    full = tiny_model(AutoModelForCausalLM, "gpt2")
    trained = {f"backbone.{name}": value + 1 for name, value in full.transformer.state_dict().items()}
    full.lm_head.weight = torch.nn.Parameter(full.lm_head.weight.detach().clone())  # parted, as fully_shard does
    _save_backbone(tmp_path, SimpleNamespace(backbone=SimpleNamespace(full=full, base=full.transformer)), trained)
    saved = load_file(tmp_path / "model.safetensors")
    assert "lm_head.weight" not in saved
    assert torch.equal(saved["transformer.wte.weight"], trained["backbone.wte.weight"])


@pytest.fixture
def no_gpu_held(monkeypatch):
    monkeypatch.setattr(gpus, "_held", [])
    monkeypatch.setenv(gpus.VISIBLE, "")  # as submitit's local jobs find it
    yield
    for lock in gpus._held:
        lock.release()


def test_jobs_on_one_machine_have_a_gpu_each(no_gpu_held, tmp_path):
    with FileLock(tmp_path / "2.lock"):  # another job's process
        gpus.take_gpu("2,5", job=0, folder=tmp_path)
        assert os.environ[gpus.VISIBLE] == "5"
        gpus.take_gpu("2,5", job=1, folder=tmp_path)  # the same process keeps it
        assert os.environ[gpus.VISIBLE] == "5"


def test_more_jobs_than_gpus_share_them(no_gpu_held, tmp_path):
    with FileLock(tmp_path / "0.lock"), FileLock(tmp_path / "1.lock"):
        gpus.take_gpu("0,1", job=3, folder=tmp_path)
    assert os.environ[gpus.VISIBLE] == "1"


def test_a_job_without_gpus_sees_what_the_study_saw(no_gpu_held, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))  # no nvidia-smi
    gpus.take_gpu(None, job=0, folder=tmp_path)
    assert gpus.VISIBLE not in os.environ


def test_gpus_are_counted_as_the_driver_lists_them(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'; echo '  MIG 1g.5gb'; echo 'GPU 1: A (UUID: y)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpus.machine_gpus(None) == ["0", "1"]


def test_launchers_that_start_several_jobs_at_once():
    found = [name for name in ("basic", "joblib", "submitit_local", "submitit_slurm", "ray") if runs_side_by_side(name)]
    assert found == ["joblib", "submitit_local"]


@pytest.mark.parametrize(("rank", "said"), [("0", "error: no"), ("3", "error (process 3): no")])
def test_the_error_of_any_process_is_printed(rank, said):
    code = "from trainers import exits; exits.PATIENCE = 0; exits.fail('no')"
    environment = os.environ | {"RANK": rank, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (2, said)
