"""Reading one checkpoint: every format, and every way in which a file can be bad."""

import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from phenoscope.core.errors import InputError
from phenoscope.record.saved.find import find_checkpoints, read_checkpoint

WEIGHTS = {"layer2.weight": torch.arange(6.0).reshape(2, 3), "layer10.weight": torch.ones(4, 2, dtype=torch.bfloat16)}


class Settings:
    """A class that a checkpoint may hold, and that only pickle could bring back."""


def only(directory: Path) -> dict[str, Tensor]:
    (checkpoint,) = find_checkpoints(directory)
    return read_checkpoint(checkpoint).weights


def shards(folder: Path, stem: str = "model", index: str | None = "model.safetensors.index.json") -> None:
    folder.mkdir(exist_ok=True)
    where = {}
    for i, (name, tensor) in enumerate(WEIGHTS.items(), 1):
        where[name] = f"{stem}-{i:05d}-of-00002.safetensors"
        save_file({name: tensor}, folder / where[name])
    if index:
        (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": where}))


def compressed(directory: Path) -> None:
    torch.save(WEIGHTS, directory / "plain.zip")
    with zipfile.ZipFile(directory / "plain.zip") as old, zipfile.ZipFile(directory / "a.pt", "w") as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry), zipfile.ZIP_DEFLATED)


def folder_of_bin(directory: Path) -> None:
    (directory / "checkpoint-7").mkdir()
    torch.save(WEIGHTS, directory / "checkpoint-7" / "pytorch_model.bin")


def folder_of_safetensors(directory: Path) -> None:
    (directory / "checkpoint-7").mkdir()
    save_file(WEIGHTS, directory / "checkpoint-7" / "model.safetensors")


WAYS: dict[str, Callable[[Path], Any]] = {
    "pt": lambda d: torch.save(WEIGHTS, d / "a.pt"),
    "pt before torch 1.6": lambda d: torch.save(WEIGHTS, d / "a.pt", _use_new_zipfile_serialization=False),
    "pt compressed": compressed,
    "pth of parameters": lambda d: torch.save({k: nn.Parameter(v) for k, v in WEIGHTS.items()}, d / "a.pth"),
    "under state_dict": lambda d: torch.save({"loss": torch.tensor(1.0), "state_dict": WEIGHTS}, d / "a.pt"),
    "under model, beside an optimizer": lambda d: torch.save(
        {"optimizer": {"m": torch.ones(2)}, "model": WEIGHTS}, d / "a.pt"
    ),
    "under ema": lambda d: torch.save({"model": None, "ema": WEIGHTS}, d / "a.pt"),
    "compiled": lambda d: torch.save({f"_orig_mod.{k}": v for k, v in WEIGHTS.items()}, d / "a.pt"),
    "safetensors": lambda d: save_file(WEIGHTS, d / "a.safetensors"),
    "shards side by side": lambda d: shards(d, "a", index=None),
    "folder of safetensors": folder_of_safetensors,
    "folder of shards": lambda d: shards(d / "checkpoint-7"),
    "folder of pytorch_model.bin": folder_of_bin,
}


@pytest.mark.parametrize("way", WAYS)
def test_every_format_gives_the_same_weights_in_the_same_order(way: str, tmp_path: Path) -> None:
    WAYS[way](tmp_path)
    read = only(tmp_path)
    assert list(read) == list(WEIGHTS)  # natural order, where the format keeps none
    for name, tensor in WEIGHTS.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_the_step_is_found_inside(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "epoch": 2, "global_step": 50}, tmp_path / "a.pt")
    torch.save({"model": WEIGHTS, "step": torch.tensor(60)}, tmp_path / "b.pt")
    save_file(WEIGHTS, tmp_path / "c.safetensors", metadata={"step": "70"})
    (tmp_path / "d").mkdir()
    save_file(WEIGHTS, tmp_path / "d" / "model.safetensors")
    (tmp_path / "d" / "trainer_state.json").write_text('{"global_step": 80, "epoch": 1.0}')
    assert [read_checkpoint(each).step for each in find_checkpoints(tmp_path)] == [50, 60, 70, 80]


def test_other_files_and_folders_are_left_alone(tmp_path: Path) -> None:
    for name in ("events.log", ".hidden.pt", "training_args.bin"):
        (tmp_path / name).write_text("x")
    (tmp_path / "logs").mkdir()
    with pytest.raises(InputError, match="holds no checkpoints"):
        find_checkpoints(tmp_path)
    with pytest.raises(InputError, match="is no directory"):
        find_checkpoints(tmp_path / "nowhere")


def put(name: str, data: bytes) -> Callable[[Path], Any]:
    return lambda directory: (directory / name).write_bytes(data)


def cut(name: str, keep: Callable[[int], int]) -> Callable[[Path], Any]:
    def make(directory: Path) -> None:
        (save_file if name.endswith("safetensors") else torch.save)(WEIGHTS, directory / name)
        os.truncate(directory / name, keep((directory / name).stat().st_size))

    return make


def index(directory: Path, shard: Any) -> None:
    shards(directory / "checkpoint-7")
    save_file(WEIGHTS, directory / "secret.safetensors")
    text = json.dumps({"weight_map": dict.fromkeys(WEIGHTS, shard)})
    (directory / "checkpoint-7" / "model.safetensors.index.json").write_text(text)
    (directory / "secret.safetensors").rename(directory.parent / "secret.safetensors")


def scripted(directory: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated, but its files are still around
        torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), directory / "a.pt")


def without_a_shard(directory: Path) -> None:
    shards(directory / "checkpoint-7")
    (directory / "checkpoint-7" / "model-00002-of-00002.safetensors").unlink()


def without_a_loose_shard(directory: Path) -> None:
    shards(directory, "a", index=None)
    (directory / "a-00001-of-00002.safetensors").unlink()


RANDOM = bytes(torch.randint(0, 256, (4096,), generator=torch.Generator().manual_seed(0)).tolist())
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (put("a.pt", b""), r"a\.pt is empty"),
    "empty safetensors": (put("a.safetensors", b""), r"a\.safetensors is empty"),
    "a link to nothing": (lambda d: (d / "a.pt").symlink_to(d / "gone"), r"a\.pt cannot be read: No such file"),
    "zeros": (put("a.pt", bytes(4096)), r"a\.pt is damaged"),
    "random": (put("a.pt", RANDOM), r"a\.pt is damaged"),
    "random safetensors": (put("a.safetensors", RANDOM), r"a\.safetensors is damaged"),
    "random behind a zip's first bytes": (put("a.pt", b"PK\x03\x04" + RANDOM), r"a\.pt is damaged or cut short"),
    "text": (put("a.ckpt", b"version https://git-lfs"), r"a\.ckpt is damaged"),
    "cut in half": (cut("a.pt", lambda size: size // 2), r"a\.pt is damaged or cut short"),
    "last byte lost": (cut("a.pt", lambda size: size - 1), r"a\.pt is damaged or cut short"),
    "cut safetensors": (cut("a.safetensors", lambda size: size - 1), r"a\.safetensors is damaged"),
    "plain pickle": (put("a.pt", pickle.dumps({"w": 1})), r"a\.pt needs pickle.*'a plain pickle' is refused"),
    "a class inside": (lambda d: torch.save({"model": WEIGHTS, "hparams": Settings()}, d / "a.ckpt"),
                       r"a\.ckpt needs pickle.*Settings' is refused.*save_model\(model, 'a\.safetensors'\)"),
    "a class inside, before torch 1.6": (
        lambda d: torch.save({"hparams": Settings()}, d / "a.pt", _use_new_zipfile_serialization=False),
        r"a\.pt needs pickle.*Settings' is refused"),
    "a whole module": (lambda d: torch.save(nn.Linear(2, 2), d / "a.pt"), r"a\.pt needs pickle.*Linear' is refused"),
    "TorchScript": (scripted, r"a\.pt needs pickle.*TorchScript"),
    "no tensors": (lambda d: torch.save({"state_dict": {}, "epoch": 3}, d / "a.pt"), r"a\.pt holds no weights"),
    "a single tensor": (lambda d: torch.save(torch.ones(2), d / "a.pt"), r"a\.pt holds no weights"),
    "an empty folder": (lambda d: (d / "checkpoint-7").mkdir(), "checkpoint-7 holds no weights"),
    "a shard is missing": (without_a_shard, r"lists the shard 'model-00002-of-00002\.safetensors', which is missing"),
    "a loose shard is missing": (without_a_loose_shard, "1 of 2 shards are there"),
    "a shard lacks a weight": (lambda d: index(d, "model-00001-of-00002.safetensors"), "which lacks it"),
    "an index that leads up": (lambda d: index(d, "../../secret.safetensors"), "points outside its folder"),
    "an absolute index": (lambda d: index(d, str(d.parent / "secret.safetensors")), "points outside its folder"),
    "an index of dots": (lambda d: index(d, ".."), "points outside its folder"),
    "an index of Windows paths": (lambda d: index(d, "C:secret.safetensors"), "points outside its folder"),
    "an index of numbers": (lambda d: index(d, 7), "is missing"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_checkpoint_is_named_in_one_line(case: str, tmp_path: Path) -> None:
    make, message = BAD[case]
    directory = tmp_path / "run"
    directory.mkdir()
    make(directory)
    with pytest.raises(InputError, match=message) as caught:
        only(directory)
    assert "\n" not in str(caught.value)
    assert str(directory) in str(caught.value)


class Bomb:
    """Unpickling it would make a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("kind", ["zip", "before torch 1.6", "plain"])
def test_a_hostile_pickle_is_refused_and_never_run(kind: str, tmp_path: Path) -> None:
    target, file = tmp_path / "ran", tmp_path / "a.pt"
    payload = {"model": WEIGHTS, "bomb": Bomb(target)}
    if kind == "plain":
        file.write_bytes(pickle.dumps(payload))
    else:
        torch.save(payload, file, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(InputError, match="needs pickle"):
        only(tmp_path)
    assert not target.exists()
    torch.load(file, weights_only=False) if kind != "plain" else pickle.loads(file.read_bytes())
    assert target.exists()  # the trap itself works


def test_an_attack_on_the_index_fails_before_the_file_outside_is_opened(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    index(directory, "../../secret.safetensors")
    (tmp_path / "secret.safetensors").write_bytes(b"")  # if it were opened, the error would be that it is empty
    with pytest.raises(InputError, match=r"points outside its folder, to '\.\./\.\./secret\.safetensors': refused"):
        only(directory)
