"""backbone= takes a folder and a hub id: family, head and optimizer follow from its config.json."""

import json
import shutil

import pytest
from huggingface_hub import constants

from heads.errors import InputError
from trainers.config import FinetuneConfig, flat
from trainers.finetune import finetune
from trainers.launch import SHIPPED
from trainers.overrides import check_overrides, groups
from trainers.own_backbone import family_of, name_backbones, own_name
from trainers.reports.command import command
from trainers.runs import plain
from trainers.studies.params import transfer_counts


@pytest.fixture
def hub(tmp_path):
    """A model of the hub with two revisions, of one and of two blocks, in the hub's cache."""
    folder = tmp_path.__class__(constants.HF_HUB_CACHE) / "models--owner--two-revisions"
    config = json.loads((SHIPPED / "tiny_bert" / "config.json").read_text())
    for name, n in (("main", 1), ("v2", 2)):
        commit = str(n) * 40
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / name).write_text(commit)
        (folder / "snapshots" / commit).mkdir(parents=True)
        (folder / "snapshots" / commit / "config.json").write_text(json.dumps(config | {"num_hidden_layers": n}))
    yield "owner/two-revisions"
    shutil.rmtree(folder)


def named(*typed):
    return name_backbones(typed, groups()["backbone"])


@pytest.mark.parametrize(
    ("config", "family"),
    [
        ({"model_type": "openai-gpt"}, "causal"),
        ({"model_type": "llama", "architectures": ["LlamaForSequenceClassification"]}, "causal"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "bidirectional"),
        ({"model_type": "bert", "is_decoder": True}, "causal"),
        ({"model_type": "roberta", "architectures": ["RobertaModel"]}, "bidirectional"),
        ({"model_type": "modernbert"}, "bidirectional"),
        ({"model_type": "modernbert-decoder"}, "causal"),
        ({"model_type": "xlnet", "architectures": ["XLNetLMHeadModel"]}, "bidirectional"),
        ({"model_type": "canine"}, "bidirectional"),
        ({"model_type": "t5"}, "encoder_decoder"),
        ({"model_type": "bart"}, "encoder_decoder"),
        ({"model_type": "ablatune_lstm", "architectures": ["LstmForCausalLM"]}, "causal"),
        ({"model_type": "of_its_own", "architectures": ["OwnForCausalLM"]}, "causal"),
    ],
)
def test_the_family_follows_from_the_config(config, family):
    assert family_of(config) == family


@pytest.mark.parametrize(
    ("model", "head", "optim"),
    [("mini_bert", "cls", "bert"), ("mini_gpt", "gpt1", "gpt1"), ("mini_lstm", "gpt1", "gpt1")],
)
def test_a_folder_gets_the_head_and_optimizer_of_its_family(compose, model, head, optim):
    (typed,) = named(f"backbone={SHIPPED / model}")
    ours, files = compose("task=sst2", typed), compose("task=sst2", f"backbone={model}")
    assert ours.head == files.head
    assert ours.head.name == head
    assert ours.optim == files.optim
    assert ours.optim == compose("task=sst2", f"optim={optim}").optim
    assert (ours.objective, ours.backbone.family) == (files.objective, files.backbone.family)
    assert ours.backbone.hub == str(SHIPPED / model)
    assert ours.run_dir == f"outputs/finetune/sst2/{own_name(str(SHIPPED / model))}/seed0"
    assert own_name(str(SHIPPED / model)).startswith(f"{model}-")


def test_an_encoder_decoder_answers_in_words(compose, t5):
    config = compose("task=sst2", *named(f"backbone={t5}"))
    assert (config.head.name, config.objective.name) == ("text_to_text", "text_to_text")


def test_a_folder_fine_tunes_and_its_command_names_the_folder(compose, tmp_path, monkeypatch):
    shutil.copytree(SHIPPED / "mini_bert", tmp_path / "my bert")
    monkeypatch.chdir(tmp_path)
    (typed,) = named("backbone='./my bert'")
    settings = ["task=sst2", "data=sample", "data.train_rows=8", "train.max_steps=1", "train.batch_size=4"]
    config = compose(*settings, typed, f"run_dir={tmp_path / 'run'}")
    assert finetune(config)["backbone"] == own_name(str(tmp_path / "my bert"))
    said = command("finetune", flat(plain(config)))
    assert f"'backbone={tmp_path / 'my bert'}'" in said
    assert "head" not in said


def test_a_model_of_the_hub_is_named_by_its_id_and_read_at_its_revision(compose, hub):
    (typed,) = named(f"backbone={hub}")
    config = compose("task=sst2", typed)
    assert typed == "backbone=owner--two-revisions"
    assert (config.backbone.hub, config.backbone.family, config.head.name) == (hub, "bidirectional", "cls")
    assert transfer_counts(hub, None, None, False) == "-1,0,1"
    assert transfer_counts(hub, None, "v2", False) == "-1,0,1,2"


def test_several_are_typed_side_by_side(hub):
    own = own_name(str(SHIPPED / "mini_gpt"))
    assert named("seed=1", f"backbone=tiny,{SHIPPED / 'mini_gpt'},{hub}") == [
        "seed=1",
        f"backbone=tiny,{own},owner--two-revisions",
    ]


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("./nowhere", r"backbone=\./nowhere: there is no such folder"),
        ("/no/where", r"backbone=/no/where: there is no such folder"),
        (
            "owner/unknown",
            r"its config\.json cannot be read \(.*\): check the name and the network",
        ),
        ("{folder}", r"has no config\.json: type backbone=.*/model"),
        ("{folder}/model", r"names no model_type"),
    ],
)
def test_what_is_no_model_is_one_line(tmp_path, typed, said):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=said) as error:
        named(f"backbone={typed.format(folder=tmp_path)}")
    assert "\n" not in str(error.value)


def test_an_unknown_name_still_gets_the_nearest(tmp_path):
    assert named("backbone=bert-base") == ["backbone=bert-base"]
    with pytest.raises(InputError, match="Did you mean 'bert_base'"):
        check_overrides(["task=sst2", "backbone=bert-base"], "finetune", FinetuneConfig)
