"""What there is to choose from: ``lightning-meta list methods|backbones|data|configs|checkpoints``.

Classes are read from the source files, and checkpoints from the heads of theirs, without importing PyTorch.
"""

import ast
import difflib
import inspect
import json
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lightning_meta.cli.configurations import PACKAGE, shipped_configurations
from lightning_meta.errors import MetaLearningError
from lightning_meta.escaping import printable
from lightning_meta.report.published import read_configurations

ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5})")
AUTHORS = re.compile(r"^[^:]+: (.+?),\s(?:\"|arXiv)")  # of a module's first line: "Name: authors, title, arXiv id"


class ExportedClass(NamedTuple):
    """A public class of a package, as its source file describes it."""

    name: str
    module: str
    node: ast.ClassDef
    module_docstring: str

    @property
    def summary(self) -> str:
        """First sentence of its docstring."""
        return first_sentence(ast.get_docstring(self.node) or "")

    @property
    def arguments(self) -> set[str]:
        """Names of its constructor's own arguments."""
        constructors = (
            part for part in self.node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"
        )
        return {argument.arg for init in constructors for argument in (*init.args.args, *init.args.kwonlyargs)}


def exported_classes(package: str) -> Iterator[ExportedClass]:
    """The classes that the ``__init__`` of a package imports from modules of the package, in its order."""
    for statement in ast.parse((PACKAGE / package / "__init__.py").read_text(encoding="utf-8")).body:
        if not isinstance(statement, ast.ImportFrom):
            continue
        module = (statement.module or "").removeprefix("lightning_meta.")
        tree = ast.parse(PACKAGE.joinpath(*module.split(".")).with_suffix(".py").read_text(encoding="utf-8"))
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        for alias in statement.names:
            if alias.name in classes:
                yield ExportedClass(alias.name, module, classes[alias.name], ast.get_docstring(tree) or "")


def list_methods() -> list[tuple[str, ...]]:
    """Name, paper and first sentence of every method."""
    return [(kind.name, paper(kind.module_docstring), kind.summary) for kind in exported_classes("algorithms")]


def list_backbones() -> list[tuple[str, ...]]:
    """Name and first sentence of every network, which is a module with a number of outputs."""
    return [(kind.name, kind.summary) for kind in exported_classes("backbones") if "outputs" in kind.arguments]


def list_data() -> list[tuple[str, ...]]:
    """Name and first sentence of every data module, without their common bases."""
    return [
        (kind.name, kind.summary) for kind in exported_classes("data") if not kind.module.startswith("data.drawing")
    ]


def list_configurations() -> list[tuple[str, ...]]:
    """Name, method, source and published figure of every shipped configuration."""
    known = read_configurations()
    rows: list[tuple[str, ...]] = []
    for name, path in shipped_configurations().items():
        if name in known:
            figure = known[name].published
            printed = f"{figure} {figure.protocol or ''}".rstrip() if figure else f"none: {known[name].unpublished}"
            rows.append((name, known[name].method, str(known[name].source or "this package"), printed))
        else:
            rows.append((name, "sweep" if name.startswith("sweeps/") else "", "", head(path)))
    return rows


def list_checkpoints() -> list[tuple[str, ...]]:
    """Name and title of every checkpoint that comes with the package; below it, figures, data and commands."""
    rows: list[tuple[str, ...]] = []
    for path in sorted((PACKAGE / "inference" / "pretrained").glob("*.safetensors")):
        about = describe(path)
        results, steps = about["results"], f"{about['meta_steps']:,} meta-steps"
        kinds = {"alone": "queries alone", "together": "all queries in one batch"}
        measured = [f"{figure(results['kind'], *results[key])} {kind}" for key, kind in kinds.items() if key in results]
        split = about["data_settings"].get("split")
        trained = [about["data"], *([f"split {split}"] if split else []), steps]
        trained += [f"{about['minutes']:.0f} minutes on {about['device']}"] if about["minutes"] else []
        rows += [
            (path.stem, about["title"]),
            ("", f"{results['kind']} on {results['tasks']:,} test tasks: {', '.join(measured)}"),
            ("", ", ".join(trained)),
            ("", about["command"]),
            ("", evaluation_command(path.stem, about["command"])),
        ]
    return rows


def evaluation_command(name: str, trained: str) -> str:
    """The command that measures a checkpoint once more, by the configuration of the command that trained it.

    >>> evaluation_command("mine", "lightning-meta fit -c configs/omniglot/maml.yaml --data.root DIR --run 1")
    'lightning-meta test -c omniglot/maml --ckpt_path mine --data.root DIR'
    """
    arguments = shlex.split(trained.replace("--config=", "-c "))
    configuration = arguments[arguments.index("-c") + 1].removeprefix("configs/").removesuffix(".yaml")
    root = " --data.root DIR" if "--data.root" in arguments else ""
    return f"lightning-meta test -c {configuration} --ckpt_path {name}{root}"


def describe(path: Path) -> dict[str, Any]:
    """What a ``.safetensors`` file of this package says of itself: 8 bytes of length, then JSON of that length."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    about: dict[str, Any] = json.loads(header["__metadata__"]["lightning_meta"])
    return about


def figure(kind: str, mean: float, half_width: float) -> str:
    """A mean with its 95% interval, accuracies in %.

    >>> figure("accuracy", 0.9642, 0.0023), figure("loss", 0.1234, 0.0056)
    ('96.42 ± 0.23 %', '0.1234 ± 0.0056')
    """
    if kind == "accuracy":
        return f"{100 * mean:.2f} ± {100 * half_width:.2f} %"
    return f"{mean:.4f} ± {half_width:.4f}"


def paper(docstring: str) -> str:
    """Authors, year and number of the paper that a module's docstring opens with.

    >>> paper('ANIL: Raghu, Raghu, Bengio and Vinyals, "Rapid Learning or Feature Reuse?", arXiv 1909.09157.')
    'Raghu et al. 2019, arXiv 1909.09157'
    """
    authors, number = AUTHORS.search(docstring), ARXIV.search(docstring)
    if not authors or not number:
        return ""
    first = re.split(r", | and | et al\.", authors[1])[0]
    return f"{first} et al. 20{number[1][:2]}, arXiv {number[1]}"


def head(path: Path) -> str:
    """First sentence of the comment that a configuration begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("# ") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")]]
    return first_sentence(" ".join(comment))


def first_sentence(text: str) -> str:
    """The first sentence in one line, without the markup of docstrings."""
    text = " ".join(inspect.cleandoc(text).partition("\n\n")[0].replace("`", "").split())
    return re.split(r"\.\s+(?=[A-Z])", text)[0].rstrip(".:")


def main(args: list[str]) -> int:
    """Print a table.

    Args:
        args: what is listed, or nothing for what can be listed.

    Raises:
        MetaLearningError: there is no such list.
    """
    if not args or args[0] in ("-h", "--help"):
        print("usage: lightning-meta list WHAT\n\nWHAT is one of")
        print_table([(f"  {name}", summary) for name, (_, summary) in LISTS.items()])
        return 0
    if len(args) > 1 or args[0] not in LISTS:
        near = difflib.get_close_matches(args[0], LISTS, 1) if len(args) == 1 else []
        hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(LISTS)}"
        raise MetaLearningError(f"list takes one name, and not {' '.join(args)}: {hint}")
    make_rows, _ = LISTS[args[0]]
    print_table(make_rows())
    return 0


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows in columns of equal width, one line each."""
    rows = [tuple(map(printable, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


LISTS: dict[str, tuple[Callable[[], list[tuple[str, ...]]], str]] = {
    "methods": (list_methods, "for --model: name, paper, and what the method does"),
    "backbones": (
        list_backbones,
        "for --model.backbone: name and architecture; any nn.Module will do, by its class path",
    ),
    "data": (list_data, "for --data: name and data set"),
    "configs": (list_configurations, "for -c: name, method, source, and the accuracy in % that the source prints"),
    "checkpoints": (
        list_checkpoints,
        "for --ckpt: trained learners, their accuracy, and the command behind it",
    ),
}
