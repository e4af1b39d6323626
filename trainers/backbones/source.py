"""Where a backbone's files are, and what to say if they cannot be read."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from heads.errors import InputError
from trainers.config import BackboneConfig
from trainers.config.adapter_folder import ADAPTER, adapter_settings, base_of_adapter
from trainers.data.unknown_tokens import missing_files

RUN_HEAD = "head.safetensors"  # in the model folder of a run
LFS = b"version https://git-lfs"

# Weights that other libraries write, by the ending of their files.
FOREIGN = {".h5": "TensorFlow", ".msgpack": "Flax", ".gguf": "GGUF", ".onnx": "ONNX", ".ckpt": "TensorFlow"}

HALVES = (("vocab.json", "merges.txt"), ("merges.txt", "vocab.json"), ("bpe.codes", "vocab.txt"))


def _typed(config: BackboneConfig) -> str:
    return config.path or config.hub


def source_of(config: BackboneConfig) -> str:
    """The folder or hub id with the backbone's config and weights; of an adapter, its base model's."""
    folder = adapter_folder(config)
    return base_of_adapter(folder) if folder else _typed(config)


def tokenizer_source(config: BackboneConfig) -> str:
    """The folder or hub id with the backbone's tokenizer; an adapter's folder if it has one."""
    folder = adapter_folder(config)
    return str(folder) if folder and not missing_files(str(folder)) else source_of(config)


def adapter_folder(config: BackboneConfig) -> Path | None:
    """The folder, if it holds an adapter of peft and no model."""
    folder = Path(_typed(config))
    return folder if (folder / ADAPTER).is_file() and not (folder / "config.json").is_file() else None


def options_of(config: BackboneConfig) -> dict[str, Any]:
    """What from_pretrained is given besides the source."""
    folder = adapter_folder(config)
    revision = adapter_settings(folder).get("revision") if folder else config.revision
    return {"revision": revision or "main", "trust_remote_code": config.trust_remote_code}


def content_of(config: BackboneConfig) -> list[Any]:
    """A backbone's cache key: its settings, and its folder's files, since a run may rewrite its model."""
    files = [(file.name, file.stat()) for file in sorted(Path(_typed(config)).glob("*"))]
    return [asdict(config), [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]]


def named(config: BackboneConfig) -> str:
    """The backbone's source, for a message."""
    return f"backbone.path={config.path}" if config.path else f"backbone {config.name} ({config.hub})"


def check_source_folder(config: BackboneConfig) -> None:
    """Make sure that a local folder is there and holds a model, or an adapter that is no run's.

    Raises:
        InputError: it is not or does not; the message says what to type instead.
    """
    folder = Path(_typed(config))
    if config.path and not folder.is_dir():
        raise InputError(f"backbone.path={config.path} is not a folder: give the folder that holds config.json")
    if not folder.is_dir():
        return
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.stat().st_size < 1000 and file.read_bytes().startswith(LFS):
            raise InputError(
                f"{named(config)}: {file.name} is a Git LFS pointer, not the file itself: run git lfs pull there"
            )
    if adapter_folder(config):
        if (folder / RUN_HEAD).is_file():
            raise InputError(
                f"{named(config)} is the adapter of a run: start from that run by init_from={folder.parent}"
            )
    elif not (folder / "config.json").is_file():
        if (folder / "model" / "config.json").is_file():
            raise InputError(
                f"{named(config)} has no config.json: its model is in {folder / 'model'}: give that folder"
            )
        raise InputError(f"{named(config)} has no config.json: give the folder of a model of transformers")


def check_missing(config: BackboneConfig, full: PreTrainedModel, missing: Sequence[str]) -> None:
    """Make sure that most of the network's weights come from its files: transformers draws the others at random.

    Raises:
        InputError: they do not, as where the files are of another architecture.
    """
    sizes = {name: parameter.numel() for name, parameter in full.named_parameters()}
    lacking = sum(sizes.get(name, 0) for name in missing)
    if 2 * lacking > sum(sizes.values()):
        raise InputError(
            f"{named(config)}: {100 * lacking / sum(sizes.values()):.0f} % of the weights of {full.config.model_type} "
            f"are not in its files (such as {missing[0]}): they are of another model than its config.json says"
        )


def unreadable(config: BackboneConfig, what: str, error: Exception) -> InputError:
    """What to say if transformers cannot read a backbone's part: tokenizer, config, model or weights."""
    if isinstance(error, InputError):
        return error
    local = config.path or Path(config.hub).is_dir()
    said = _known_reason(config, what, error) if local else None
    if said is None and "trust_remote_code" in str(error):
        said = "needs Python code of its own: type backbone.trust_remote_code=true if you trust its author"
    if said:
        return InputError(f"{named(config)} {said}")
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    remedy = "check the folder" if local else "check the network, or give its folder by backbone.path=DIR"
    return InputError(f"{named(config)}: the {what} cannot be read ({reason}): {remedy}")


def _known_reason(config: BackboneConfig, what: str, error: Exception) -> str | None:
    folder = Path(source_of(config) if what != "tokenizer" else tokenizer_source(config))
    if what == "tokenizer":
        return _missing_tokenizer(folder)
    said, kind = str(error), type(error).__name__
    if what != "weights":
        return None
    if "no file named" in said:
        return _no_weights(folder)
    if kind == "SafetensorError":
        return f"has a damaged or incomplete safetensors file ({said.splitlines()[0]}): copy it again"
    if kind in ("UnpicklingError", "EOFError", "BadZipFile"):
        return (
            "has a pytorch_model.bin that is damaged, or holds Python objects besides weights, which are never run: "
            "copy it again, or convert it to model.safetensors"
        )
    if "ignore_mismatched_sizes" in said:
        return "has weights of other sizes than its config.json states: copy both from the same model"
    return None


def _missing_tokenizer(folder: Path) -> str | None:
    if missing_files(str(folder)):
        missing = "tokenizer.json, or the vocabulary files of its class"
    else:
        missing = ", ".join(b for a, b in HALVES if (folder / a).is_file() and not (folder / b).is_file())
    remedy = "copy the tokenizer files of the same model there"
    return f"has no usable tokenizer (missing: {missing}): {remedy}" if missing else None


def _no_weights(folder: Path) -> str:
    files = sorted(file.name for file in folder.iterdir())
    shards = [name for name in files if name.endswith(".safetensors")]
    foreign = [(name, kind) for name in files if (kind := FOREIGN.get(Path(name).suffix))]
    if shards:
        return f"has {shards[0]} without model.safetensors.index.json, which names all parts: copy it too"
    if foreign:
        name, kind = foreign[0]
        return f"has {kind} weights alone ({name}): convert them to model.safetensors"
    return "has no weights (model.safetensors or pytorch_model.bin): copy them there, or type backbone.weights=random"
