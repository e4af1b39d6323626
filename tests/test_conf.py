"""Every YAML composes to a checked config, and changes what it says that it changes."""

from dataclasses import asdict

import pytest

from heads.errors import InputError
from trainers.config import FinetuneConfig, flat
from trainers.overrides import CONF
from trainers.schedules import SCHEDULES

EXPECTED = {
    "task": {
        *("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "ax", "snli", "scitail"),
        *("race", "race_middle", "race_high", "story_cloze"),
        *("dpr", "wsc273", "cb", "boolq", "wic", "copa"),
        *("single", "pair", "similarity", "choice", "regression"),
    },
    "backbone": {
        *("gpt1", "gpt2", "bert_base", "bert_large", "roberta_base", "modernbert", "deberta_v3", "minilm"),
        *("smollm2", "qwen3_0_6b", "t5_small", "t5_v1_1_small", "tiny", "tiny_bert", "tiny_lstm"),
    },
    "objective": {"task", "lm", "text_to_text"},
    "head": {"gpt1", "cls", "text_to_text"},
    "optim": {"gpt1", "bert", "t5"},
    "peft": {"none", "lora", "dora", "ia3", "prefix", "ln_tuning", "top1", "top2"},
    "tracking": {"none", "wandb", "tensorboard"},
    "ablation": {"none", "no_aux_lm", "no_pretraining", "lstm"},
    "data": {"hub", "sample"},
}
FOUND = {group: sorted(path.stem for path in (CONF / group).glob("*.yaml")) for group in EXPECTED}
CAUSAL = {"gpt1", "gpt2", "smollm2", "qwen3_0_6b", "mini_gpt", "mini_lstm", "tiny", "tiny_lstm"}
OWN_FILES = {"single", "pair", "similarity", "choice", "regression"}

EXPECTED_CHANGES = {
    "none": set(),
    "no_aux_lm": {"objective.lm_coef"},
    "no_pretraining": {"n_transfer"},
    "lstm": {"backbone.hub"},
}


@pytest.mark.parametrize("group", EXPECTED)
def test_files_were_found(group):
    assert set(FOUND[group]) >= EXPECTED[group]


def typed(group, name):
    """The shortest command line that chooses a group's file."""
    if group == "task":
        return [f"task={name}"]
    goes_with = {
        ("head", "cls"): "tiny_bert",
        ("head", "text_to_text"): "t5_small",
        ("objective", "text_to_text"): "t5_small",
        ("ablation", "lstm"): "mini_gpt",
    }
    backbone = goes_with.get((group, name))
    return ["task=sst2", f"{group}={name}", *([f"backbone={backbone}"] if backbone else [])]


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group, names in FOUND.items() for name in names if name != "lm"]
)
def test_every_file_composes(compose, group, name):
    config = compose(*typed(group, name))
    assert isinstance(config, FinetuneConfig)
    assert config.run_dir.startswith("outputs/finetune/")
    assert config.optim.schedule in SCHEDULES
    if group in ("task", "backbone", "head", "objective"):
        assert getattr(config, group).name == name


@pytest.mark.parametrize("name", FOUND["task"])
def test_a_tasks_file_bears_its_name_and_its_reference(compose, name):
    task = compose(f"task={name}").task
    assert task.name == name
    assert len(task.reference) > 20
    assert ("http" in task.reference) == (name not in OWN_FILES)
    assert (task.hub is None) == (name in OWN_FILES)
    assert bool(task.splits) == (task.hub is not None)


@pytest.mark.parametrize("task", ["sst2", "mnli", "stsb", "race"])  # one of each structure
def test_a_task_goes_with_the_other_family_too(compose, task):
    config = compose(f"task={task}", "backbone=bert_base")
    assert (config.task.name, config.backbone.family) == (task, "bidirectional")


@pytest.mark.parametrize("name", FOUND["backbone"])
def test_a_backbone_chooses_its_head_and_optimizer(compose, name):
    config = compose("task=sst2", f"backbone={name}")
    assert config.backbone.name == name
    causal = config.backbone.family == "causal"
    assert causal == (name in CAUSAL)
    assert (config.backbone.weights == "random") == name.startswith("tiny")
    found = (config.head.name, config.head.both_orders, config.objective.lm_coef, config.optim.name)
    families = {
        "causal": ("gpt1", True, 0.5, "gpt1_adam"),
        "bidirectional": ("cls", False, 0.0, "adamw"),
        "encoder_decoder": ("text_to_text", False, 0.0, "adamw"),
    }
    assert found == families[config.backbone.family]
    assert config.objective.name == ("text_to_text" if config.backbone.family == "encoder_decoder" else "task")


def test_objective_lm_has_a_config_of_its_own():
    import hydra
    from omegaconf import OmegaConf

    from trainers.config import LmConfig
    from trainers.launch import register

    register("finetune_lm", LmConfig)
    for backbone in sorted(CAUSAL):
        asked = ["objective=lm", f"backbone={backbone}", "corpus.files=[a.txt]"]
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            config = OmegaConf.to_object(hydra.compose("finetune_lm", overrides=asked))
        assert isinstance(config, LmConfig)
        assert (config.objective.name, config.backbone.name, config.corpus.valid_fraction) == ("lm", backbone, 0.1)
        assert config.run_dir == f"outputs/finetune/lm/{backbone}/seed0"


def test_the_published_settings(compose):
    gpt = compose("task=sst2", "backbone=gpt1")
    assert (gpt.optim.lr, gpt.optim.schedule, gpt.optim.warmup) == (6.25e-5, "warmup_linear", 0.002)
    assert (gpt.optim.weight_decay, gpt.optim.eps, gpt.optim.max_grad_norm) == (0.01, 1e-8, 1.0)
    bert = compose("task=sst2", "backbone=bert_base")
    assert (bert.optim.lr, bert.optim.schedule, bert.optim.warmup, bert.optim.eps) == (5e-5, "linear", 0.1, 1e-6)
    for config in (gpt, bert):
        assert (config.train.epochs, config.train.batch_size, config.head.clf_pdrop) == (3, 32, 0.1)


def test_the_command_line_wins_over_the_backbone(compose):
    config = compose("task=mrpc", "backbone=minilm", "head=gpt1", "objective.lm_coef=0")
    assert (config.head.name, config.head.both_orders, config.objective.lm_coef) == ("gpt1", True, 0.0)
    assert config.optim.name == "adamw"
    config = compose("task=mrpc", "backbone=bert_base", "optim=gpt1", "optim.lr=1e-3")
    assert (config.head.name, config.optim.name, config.optim.lr) == ("cls", "gpt1_adam", 1e-3)


def test_what_does_not_go_together_is_an_input_error(compose):
    with pytest.raises(InputError, match=r"^head=cls reads the first token.*\(gpt2\).*use head=gpt1$"):
        compose("task=sst2", "backbone=gpt2", "head=cls")
    with pytest.raises(InputError, match="auxiliary LM loss needs a causal backbone, and minilm is bidirectional"):
        compose("task=mrpc", "backbone=minilm", "head=gpt1")


def settings(config):
    return {key: value for key, value in flat(asdict(config)).items() if key not in ("ablation", "run_dir")}


def test_every_ablation_says_what_it_changes():
    assert set(FOUND["ablation"]) == set(EXPECTED_CHANGES)


@pytest.mark.parametrize("ablation", EXPECTED_CHANGES)
@pytest.mark.parametrize("backbone", ["gpt1", "mini_gpt"])
def test_an_ablation_changes_only_what_it_names(compose, ablation, backbone):
    typed = ["task=sst2", f"backbone={backbone}", *(["backbone.lstm=x"] if backbone == "gpt1" else [])]
    plain = settings(compose(*typed))
    composed = compose(*typed, f"ablation={ablation}")
    changed = settings(composed)
    assert composed.ablation == ablation
    assert plain.keys() == changed.keys()
    assert {key for key in plain if plain[key] != changed[key]} == EXPECTED_CHANGES[ablation]


def test_what_the_ablations_change_to(compose):
    assert compose("task=sst2", "ablation=no_aux_lm").objective.lm_coef == 0
    assert compose("task=sst2", "ablation=no_pretraining").n_transfer == -1
    assert compose("task=sst2", "ablation=lstm", "backbone=gpt1", "backbone.lstm=folder").backbone.hub == "folder"
    twin = compose("task=sst2", "ablation=lstm", "backbone=mini_gpt").backbone
    assert twin.hub == compose("task=sst2", "backbone=mini_lstm").backbone.hub


def test_a_backbone_without_an_lstm_says_how_to_make_one(compose):
    message = (
        r"^ablation=lstm needs an LSTM .* on gpt2's text: pretrain one .recipes/pretrain.py.*backbone.lstm=DIR/model$"
    )
    with pytest.raises(InputError, match=message):
        compose("task=sst2", "backbone=gpt2", "ablation=lstm")
    with pytest.raises(InputError, match=r"^ablation=lstm .* leave backbone.path out$"):
        compose("task=sst2", "backbone=gpt2", "ablation=lstm", "backbone.lstm=x", "backbone.path=y")
