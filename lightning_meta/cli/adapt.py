"""``lightning-meta adapt``: learn classes from a few labelled pictures, and predict others."""

import argparse
import importlib.util
import sys
from pathlib import Path

import torch

from lightning_meta.cli.parser import Parser
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.errors import MetaLearningError
from lightning_meta.escaping import printable
from lightning_meta.inference import FewShotClassifier, export_onnx, export_program, load_learner
from lightning_meta.inference.outputs import replaced_together
from lightning_meta.inference.page import MOST as MOST_ON_PAGE
from lightning_meta.inference.page import html_page
from lightning_meta.inference.pictures import class_folders
from lightning_meta.inference.predictions import Predictions
from lightning_meta.inference.queries import PictureFile, Pictures, query_files, read_files
from lightning_meta.inference.sheet import MOST as MOST_ON_SHEET
from lightning_meta.inference.sheet import contact_sheet
from lightning_meta.learner import MetaLearner

DESCRIPTION = """Adapt a trained learner to a few labelled pictures, and predict the class of others.

The checkpoint says how a picture becomes an input (size, colours, polarity), so files of any kind and size will do.
"""
EPILOG = """example:
  lightning-meta adapt --ckpt omniglot_maml_5w1s --support known --query unknown --out predictions.csv
where known/ holds a folder of pictures for each class, and unknown/ pictures, or such folders to measure accuracy.
"""
SUFFIXES = {"out": (".csv", ".json"), "sheet": (".png",), "html": (".html", ".htm"), "export": (".onnx", ".pt2")}
MOST_MESSAGES = 10


def main(args: list[str]) -> int:
    """Adapt, predict and write what was asked for; returns 0.

    Args:
        args: arguments after ``lightning-meta adapt``.

    Raises:
        MetaLearningError: checkpoint, folders or outputs are not as they have to be.
    """
    options = _parser().parse_args(args)
    outputs = _outputs(options)
    learner = load_learner(options.ckpt, trust=options.trust)
    preprocessing = _preprocessing(options.ckpt, learner)
    support, classes = _support(options.support)
    queries, notes = query_files(options.query, classes)
    seen = {file.path.resolve() for file in support}
    if known := sum(file.path.resolve() in seen for file in queries):
        notes.append(f"{known} of the pictures to predict {'is' if known == 1 else 'are'} among those learned from")
    with replaced_together(outputs, [file.path for file in (*support, *queries)]) as partials:
        examples = read_files(support, preprocessing, strict=True)
        classifier = FewShotClassifier(learner, steps=options.steps, together=options.together)
        classifier.fit(examples.x, [str(file.truth) for file in support])
        if "--export" in partials:
            _export(classifier, partials["--export"])
        most = max(MOST_ON_PAGE * ("--html" in outputs), MOST_ON_SHEET * ("--sheet" in outputs))
        pictures = read_files(queries, preprocessing, thumbnails=most)
        notes += [f"--support: {note}" for note in examples.notes] + [f"--query: {note}" for note in pictures.notes]
        predictions = _predict(options, classifier, len(support), pictures, notes)
        title = printable(str(predictions.about["summary"]))
        if "--out" in partials:
            text = predictions.json() if options.out.suffix.lower() == ".json" else predictions.csv()
            partials["--out"].write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
        if "--sheet" in partials:
            contact_sheet(predictions, pictures.thumbnails, title).save(partials["--sheet"], "PNG")
        if "--html" in partials:
            page = html_page(predictions, pictures.thumbnails, title)
            partials["--html"].write_text(page, encoding="utf-8")
    _report(predictions, pictures, notes, outputs)
    return 0


def _parser() -> Parser:
    parser = Parser(
        "lightning-meta adapt", description=DESCRIPTION, epilog=EPILOG, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = parser.add_argument
    add(
        "--ckpt",
        required=True,
        metavar="NAME_OR_PATH",
        help="a checkpoint (`lightning-meta list checkpoints`), or a file",
    )
    add("--support", required=True, type=Path, metavar="DIR", help="holds a folder of pictures for each class")
    help_text = "what to predict: pictures, folders of pictures, or folders with a folder for each class"
    add("--query", required=True, type=Path, nargs="+", metavar="PATH", help=help_text)
    add("--out", type=Path, metavar="FILE", help="write all predictions, as .csv or .json")
    add("--steps", type=int, metavar="N", help="inner steps (default: as many as in the learner's evaluation)")
    help_text = "predict all pictures in one batch, which share their batch statistics; otherwise each is seen alone"
    add("--together", action="store_true", help=help_text)
    add("--sheet", type=Path, metavar="FILE", help="draw the pictures with their predictions, as .png")
    add("--html", type=Path, metavar="FILE", help="the same as one self-contained page")
    add("--export", type=Path, metavar="FILE", help="write the adapted network, as .onnx or as .pt2 of torch.export")
    add("--trust", action="store_true", help="let the checkpoint run code; only for files whose maker you trust")
    return parser


def _outputs(options: argparse.Namespace) -> dict[str, Path]:
    """The files to write by option, each with a suffix that says its form."""
    outputs = {}
    for name, suffixes in SUFFIXES.items():
        path = getattr(options, name)
        if path is None:
            continue
        if path.suffix.lower() not in suffixes:
            raise MetaLearningError(f"--{name} is {path}, expected a file that ends in {' or '.join(suffixes)}")
        outputs[f"--{name}"] = path
    if str(options.export).lower().endswith(".onnx") and importlib.util.find_spec("onnxscript") is None:
        raise MetaLearningError('--export as .onnx needs further packages: pip install "lightning-meta[export]"')
    return outputs


def _preprocessing(name: str, learner: MetaLearner) -> Preprocessing:
    plain = learner.trained_on.get("preprocessing")
    if plain is None:
        data = learner.trained_on.get("data")
        raise MetaLearningError(
            f"--ckpt is {name}, which "
            + (
                f"was trained on {data} and takes no pictures"
                if data
                else "does not say how a picture becomes an input"
            )
            + ": take one that was trained on pictures (`lightning-meta list checkpoints`)"
        )
    return Preprocessing.from_plain(plain)


def _support(folder: Path) -> tuple[list[PictureFile], list[str]]:
    if not folder.exists():
        raise MetaLearningError(f"--support is {folder}, which does not exist: name a folder with one for each class")
    try:
        paths, labels = class_folders(folder)
    except OSError as error:
        raise MetaLearningError(f"--support is {folder}, which cannot be listed ({error})") from error
    classes = sorted(set(labels))
    if len(classes) < 2:
        raise MetaLearningError(
            f"--support is {folder}, which holds the one class {classes[0]}: add a folder for each of the others"
        )
    return [PictureFile(path, label) for path, label in zip(paths, labels, strict=True)], classes


def _export(classifier: FewShotClassifier, path: Path) -> None:
    if path.suffix.lower() == ".onnx":
        export_onnx(classifier.adapted_, path)
    else:
        torch.export.save(export_program(classifier.adapted_), path)


def _predict(
    options: argparse.Namespace, classifier: FewShotClassifier, examples: int, pictures: Pictures, notes: list[str]
) -> Predictions:
    learner, adapted = classifier.learner_, classifier.adapted_
    classes = [str(name) for name in classifier.classes_]
    steps = learner.inner.evaluation_steps if options.steps is None else options.steps
    how = f"by {steps} inner step{'' if steps == 1 else 's'}"
    if adapted.head == "prototypes":
        steps, how = 0, "by prototypes"
        notes.append(
            f"{len(classes)} classes are more than the network's outputs: its last layer is made of the mean features "
            "of each class (prototypes), without inner steps"
        )
    elif learner.compares:
        how = "by comparison"
    protocol = "all in one batch" if options.together else "each alone"
    about = {
        "summary": f"{Path(options.ckpt).name} ({type(learner).__name__}) adapted {how} to {examples} pictures of "
        f"{len(classes)} classes; {len(pictures.files)} to predict, {protocol}",
        "checkpoint": str(options.ckpt),
        "method": type(learner).__name__,
        "head": adapted.head,
        "inner_steps": steps,
        "protocol": "transductive" if options.together else "non-transductive",
        "preprocessing": learner.trained_on["preprocessing"],
        "notes": notes,
        "left_out": pictures.left_out,
    }
    files, truth = [str(file.path) for file in pictures.files], [file.truth for file in pictures.files]
    return Predictions(files, truth, classes, classifier.predict_proba(pictures.x), about)


def _report(predictions: Predictions, pictures: Pictures, notes: list[str], outputs: dict[str, Path]) -> None:
    for note in notes:
        _say(note)
    for message in pictures.left_out[:MOST_MESSAGES]:
        _say(f"left out: {message}")
    if left := len(pictures.left_out):
        total = left + len(pictures.files)
        _say(f"{left} of {total} pictures to predict could not be read and {'is' if left == 1 else 'are'} left out")
    print(printable(str(predictions.about["summary"])), predictions.screen(), sep="\n\n")
    if outputs:
        print(f"\nwritten: {', '.join(printable(str(path)) for path in outputs.values())}")


def _say(line: str) -> None:
    print(f"lightning-meta adapt: {printable(line)}", file=sys.stderr)
