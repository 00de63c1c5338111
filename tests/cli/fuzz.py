"""Wrong and extreme command lines, made from the command line's own settings, from files and from its own arguments."""

import contextlib
import functools
import io
import os
import pickle
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from lightning_meta.cli import main

RUN = ["--trainer.max_steps=1", "--trainer.val_check_interval=1", "--trainer.accelerator=cpu"]
RUN += ["--trainer.enable_progress_bar=false", "--trainer.log_every_n_steps=1", "--trainer.max_time=00:00:00:20"]
TASKS = ["--data.meta_batch_size=2", "--data.validation_tasks=2", "--data.test_tasks=2"]
GLYPHS = ["--data=GlyphEpisodes", "--data.train_classes=8", "--data.validation_classes=4", "--data.test_classes=4"]
GLYPHS += ["--data.ways=2", *TASKS]
CONV4 = ["--model.backbone=Conv4", "--model.backbone.filters=2"]
EAGER = ["--model.compile=false", "--model.task_chunk=1"]
MAML = ["--model=MAML", *CONV4, "--model.inner.evaluation_steps=1", *GLYPHS, *EAGER]
REPTILE = ["--model=Reptile", *CONV4, "--model.inner.steps=2", "--model.inner.evaluation_steps=1", *GLYPHS, *EAGER]
REPTILE += ["--model.lr_scheduler=torch.optim.lr_scheduler.PolynomialLR"]
PROTOTYPES = ["--model=PrototypicalNetworks", *CONV4, *GLYPHS, *EAGER]
WAVES = ["--model=MAML", "--model.backbone=lightning_meta.backbones.MLP", "--model.backbone.inputs=1"]
WAVES += [
    "--model.backbone.hidden=[4]",
    "--model.loss=torch.nn.functional.mse_loss",
    "--checkpoint.monitor=val_loss",
    "--checkpoint.mode=min",
]
WAVES += ["--data=SinusoidEpisodes", *TASKS, *EAGER]
BASES = [MAML, REPTILE, PROTOTYPES, WAVES]

NUMBERS = ["-1", "0", "1", "1.5", "nan", "inf", "-inf", "1e30", "99999999999999999999", "x", "null", "[]", "{}", "true"]
WORDS = ["''", "x", "null", "[]", "{}", "3", "../..", "a\tb", "é" * 300, "{class_path: x}", "{class_path: 3}", "[[["]
WORDS += ["json", "json.loads", "torch.nn.Linear", "a b", "-1", "true", "{init_args: {x: 1}}", "__class__"]
ENDLESS = {"--trainer.max_steps=1e30", "--trainer.max_steps=99999999999999999999"}  # what a person may mean

YAML_FILES = {
    "empty": "",
    "null": "null",
    "list": "- 1\n- 2\n",
    "number": "3",
    "word": "hello",
    "tab": "trainer:\n\tmax_steps: 3\n",
    "open": "trainer: {max_steps: 3",
    "aliases": "a: &a [x, x, x, x, x, x, x, x, x]\n"
    + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "deep": "a: " + "[" * 3000 + "]" * 3000,
    "tag": "experiment: !!python/object/apply:os.system ['touch hacked']\n",
    "itself": "trainer: &a\n  callbacks: *a\n",
    "number_as_key": "3: x\n",
    "list_as_key": "? [1, 2]\n: x\n",
    "model_list": "model: [MAML]\n",
    "model_null": "model: null\n",
    "trainer_list": "trainer: [3]\n",
    "class_list": "model: {class_path: [MAML]}\n",
    "settings_list": "model: {class_path: MAML, init_args: [1]}\n",
    "more": "model: {class_path: MAML, init_args: {}, more: 3}\n",
    "subcommand": "fit: {trainer: {max_steps: 1}}\n",
    "page": "<html><body>404</body></html>",
}


class Hostile:
    """What a pickle runs where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("hacked",)


def make_files(folder: Path) -> list[Path]:
    """Files of a wrong kind, a folder, a pipe, and names of nothing."""
    folder.mkdir()
    for name, text in YAML_FILES.items():
        folder.joinpath(f"{name}.yaml").write_text(text)
    folder.joinpath("latin.yaml").write_bytes("experiment: é\n".encode("latin-1"))
    folder.joinpath("binary.yaml").write_bytes(bytes(range(256)) * 10)
    folder.joinpath("archive.ckpt").write_bytes(b"PK\x03\x04" + bytes(100))
    folder.joinpath("zeros.ckpt").write_bytes(bytes(1000))
    folder.joinpath("header.safetensors").write_bytes(b"\xff" * 8 + b"{}")
    folder.joinpath("hostile.ckpt").write_bytes(pickle.dumps(Hostile()))
    torch.save({"a": 1}, folder / "other.ckpt")
    torch.save([1], folder / "list.ckpt")
    torch.save(torch.zeros(2), folder / "tensor.ckpt")
    torch.save({"state_dict": {}}, folder / "bare.ckpt")
    Image.new("L", (5, 5)).save(folder / "picture.png")
    np.save(folder / "array.npy", np.zeros(3))
    folder.joinpath("folder.ckpt").mkdir()
    folder.joinpath("nowhere.yaml").symlink_to("missing")
    folder.joinpath("loop.yaml").symlink_to("loop.yaml")
    os.mkfifo(folder / "pipe.ckpt")
    return [*sorted(folder.iterdir()), folder / "missing.yaml", Path("/dev/null"), Path("/dev/zero"), Path("x" * 5000)]


def of_files(files: list[Path], folder: Path) -> Iterator[list[str]]:
    """Each file where a configuration, a checkpoint, a sweep, a run, a picture or data are expected."""
    for path in map(str, files):
        picture = str(folder / "picture.png")
        yield ["fit", "-c", path]
        yield ["fit", *MAML, *RUN, "-c", path]
        yield ["fit", *MAML, *RUN, f"--ckpt_path={path}"]
        yield ["test", *MAML, *RUN[1:4], f"--ckpt_path={path}"]
        yield ["sweep", path]
        yield ["report", path]
        yield ["list", path]
        yield ["adapt", "--ckpt", path, "--support", str(folder), "--query", picture]
        yield ["adapt", "--ckpt", "omniglot_maml_5w1s", "--support", path, "--query", picture]
        yield ["demo", "--ckpt", path, "--static", "static"]
        yield ["fit", "--model=MAML", *CONV4, "--data=FolderEpisodes", f"--data.root={path}", *RUN]
        yield ["fit", "--model=MAML", *CONV4, "--data=OmniglotEpisodes", f"--data.root={path}", *RUN]
        yield ["fit", "--model=MAML", *CONV4, "--data=ArrayEpisodes", f"--data.x={path}", f"--data.y={path}", *RUN]
        yield ["fit", *MAML, *RUN, f"--experiment={path}"]


def of_arguments() -> Iterator[list[str]]:
    """A good command line with one argument missing, cut, doubled or misspelt, and with one too many."""
    good = ["fit", *MAML, *RUN]
    for place, argument in enumerate(good[1:-6], 1):
        before, after = good[:place], good[place + 1 :]
        name = argument.partition("=")[0]
        for changed in ([], [name], [f"{name}="], [argument[1:]], [argument.upper()], [argument.replace(".", "..")]):
            yield [*before, *changed, *after]
        yield [*good, argument.replace("=", "+=")]
        yield [*good, argument.replace("--", "--fit.")]
    tails = [
        [],
        ["--bogus"],
        ["-x"],
        ["--", "x"],
        ["stray"],
        [""],
        ["-c"],
        ["--config="],
        ["é"],
        ["--=3"],
        ["---"],
        ["x"] * 99,
    ]
    for name in ("fit", "test", "predict", "adapt", "demo", "report", "sweep", "list"):
        yield from ([name, *tail] for tail in tails if name != "demo" or tail)
    yield from ([name] for name in ("", "fitt", "-fit", "FIT", "help", "3"))


@functools.cache  # four programs print their settings for it
def of_settings() -> list[list[str]]:
    """Each setting with values of a wrong type, of a wrong sign, and extreme ones."""
    found = []
    for base in BASES:
        for key, value in settings(base).items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            for wrong in NUMBERS if number else NUMBERS[:6] + WORDS:
                if f"--{key}={wrong}" not in ENDLESS:
                    found.append(["fit", *base, *RUN, f"--{key}={wrong}"])
    return found


def settings(base: list[str]) -> dict[str, Any]:
    """All settings of a command line by their keys, as it prints them."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["fit", *base, *RUN, "--print_config"]) == 0
    found: dict[str, Any] = {}

    def walk(node: Any, key: str) -> None:
        if isinstance(node, dict):
            for name, value in node.items():
                walk(value, key if name in ("init_args", "class_path") else f"{key}.{name}".lstrip("."))
        else:
            found.setdefault(key, node)

    walk(yaml.safe_load(printed.getvalue()), "")
    return found


def cases(number: int, seed: int, folder: Path) -> list[list[str]]:
    """A fixed choice of command lines.

    Args:
        number: how many; six in ten have one wrong setting, one in ten two, two in ten a file, the others an argument.
        seed: of the choice.
        folder: where the files are made.
    """
    choice = random.Random(seed)
    single = of_settings()
    files, arguments = list(of_files(make_files(folder), folder)), list(of_arguments())
    pairs = [[*choice.choice(single), choice.choice(single)[-1]] for _ in range(number // 10)]
    chosen = choice.sample(single, number * 6 // 10) + choice.sample(files, number * 2 // 10) + pairs
    chosen += choice.sample(arguments, number - len(chosen))
    choice.shuffle(chosen)
    return chosen
