"""Does a learner that is used through files do as well as in its test? Omniglot's unseen characters as PNG files.

    python benchmarks/studies/adapt_accuracy.py --data ROOT [--ckpt NAME] [--tasks 200] [--exports 200] [--seed 0]

Each task takes characters of the test split that the checkpoint names, turns every one by a random multiple of 90
degrees, as `rotations: tasks` does in its test, and writes drawings of them into folders. `lightning-meta adapt`
learns from one folder and predicts the other, one picture at a time; `FewShotClassifier` does the same from the
paths, and onnxruntime from the adapted network that the command exports, for the first EXPORTS tasks. Where the inner
loop takes the whole support set, what `lightning-meta test` computes is taken for the same pictures. Prints a table,
with the mean over tasks and its 95% interval, beside what the checkpoint recorded after its own test on other tasks.
ROOT holds ``omniglot-py``.
"""

import argparse
import contextlib
import io
import json
import random
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from PIL import Image

from lightning_meta.cli import main as run
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.data.omniglot import FOLDER, read_splits
from lightning_meta.episode import Episode
from lightning_meta.inference import FewShotClassifier, pretrained, read_pictures
from lightning_meta.inference.pictures import class_folders
from lightning_meta.learner import MetaLearner
from lightning_meta.learner_file import describe_checkpoint
from lightning_meta.metrics import TaskMean

QUERIES = 1  # of a class, as in the test


class Outcome(NamedTuple):
    """Accuracy of one task on each way, and the probabilities on those that have them."""

    accuracy: dict[str, float]
    probabilities: dict[str, np.ndarray]


def main() -> None:
    """Run the tasks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--ckpt", default="omniglot_maml_5w1s")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--exports", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    about = describe_checkpoint(pretrained()[given.ckpt])
    characters = read_splits(about["data_settings"]["split"])["test"]
    draw = random.Random(given.seed)
    means: dict[str, TaskMean] = {}
    differences = dict.fromkeys(["FewShotClassifier", "ONNX export", "as `lightning-meta test`"], 0.0)
    unequal = dict.fromkeys(differences, 0)
    for task in range(given.tasks):
        with tempfile.TemporaryDirectory() as folder:
            write_task(Path(folder), given.data / FOLDER, draw, characters, about["ways"], about["shots"])
            accuracy, probabilities = outcome(Path(folder), given.ckpt, export=task < given.exports)
        for name, value in accuracy.items():
            means.setdefault(name, TaskMean([0])).update(torch.tensor([[value]]))
        command = probabilities["lightning-meta adapt"]
        for name in differences.keys() & probabilities.keys():
            differences[name] = max(differences[name], float(np.abs(probabilities[name] - command).max()))
            unequal[name] += int((probabilities[name].argmax(1) != command.argmax(1)).sum())

    print("| way | tasks | accuracy, % | predictions unlike the command's | largest difference of a probability |")
    print("|---|---|---|---|---|")
    for name, mean in means.items():
        interval = mean.compute()
        figure = f"{100 * interval.mean.item():.2f} ± {100 * interval.half_width.item():.2f}"
        agreement = f"{unequal[name]} | {differences[name]:.1e}" if name in differences else " | "
        print(f"| {name} | {interval.tasks} | {figure} | {agreement} |")
    recorded, half = about["results"]["alone"]
    print(
        f"| recorded in the checkpoint | {about['results']['tasks']:,} | {100 * recorded:.2f} ± {100 * half:.2f} | | |"
    )


def write_task(folder: Path, source: Path, draw: random.Random, characters: list[str], ways: int, shots: int) -> None:
    """Write ``support/CLASS`` and ``query/CLASS``, each character turned by a multiple of 90 degrees."""
    for character in draw.sample(characters, ways):
        turn = draw.choice([0, 90, 180, 270])
        drawings = draw.sample(sorted((source / character).iterdir()), shots + QUERIES)
        for place, drawing in enumerate(drawings):
            part = folder / ("support" if place < shots else "query") / character.replace("/", " ")
            part.mkdir(parents=True, exist_ok=True)
            with Image.open(drawing) as picture:
                picture.rotate(turn).save(part / drawing.name)


def outcome(folder: Path, checkpoint: str, export: bool) -> Outcome:
    """Solve a task on every way."""
    support, query, out, model = folder / "support", folder / "query", folder / "out.json", folder / "model.onnx"
    arguments = ["adapt", "--ckpt", checkpoint, "--support", support, "--query", query, "--out", out]
    with contextlib.redirect_stdout(io.StringIO()):
        status = run([*map(str, arguments), *(["--export", str(model)] if export else [])])
    if status:
        raise SystemExit(f"lightning-meta adapt ended with status {status}")
    answer = json.loads(out.read_text("utf-8"))
    probabilities = {
        "lightning-meta adapt": np.array([list(row["probabilities"].values()) for row in answer["predictions"]])
    }
    files, truth = class_folders(query)
    classifier = FewShotClassifier(checkpoint).fit(support)
    probabilities["FewShotClassifier"] = classifier.predict_proba(files)
    preprocessing = Preprocessing.from_plain(answer["preprocessing"])
    x, _ = read_pictures(files, preprocessing)
    right = np.array([answer["classes"].index(name) for name in truth])
    if classifier.learner_.inner.evaluation_batch_size is None:
        support_x, _ = read_pictures(class_folders(support)[0], preprocessing)
        outputs = as_tested(classifier.learner_, support_x, x)
        probabilities["as `lightning-meta test`"] = outputs.double().softmax(1).numpy()
    if export:
        session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
        (outputs,) = session.run(None, {"x": x.numpy()})
        probabilities["ONNX export"] = torch.tensor(outputs).double().softmax(1).numpy()
    accuracy = {name: float((p.argmax(1) == right).mean()) for name, p in probabilities.items()}
    return Outcome(accuracy, probabilities)


def as_tested(learner: MetaLearner, support_x: torch.Tensor, query_x: torch.Tensor) -> torch.Tensor:
    """Outputs for the queries of one task, each taken alone, by the function that a test evaluates."""
    ways = learner.trained_on["ways"]
    support_y, query_y = (torch.arange(ways).repeat_interleave(len(x) // ways) for x in (support_x, query_x))
    order = torch.arange(len(support_x)).expand(learner.inner.evaluation_steps, -1)
    task = Episode(support_x, support_y, query_x, query_y, order, torch.tensor(0), torch.arange(ways))
    carry = learner.evaluation_carry(Episode(*(tensor[None] for tensor in task)))
    with torch.no_grad():
        return learner.predictions(learner.meta_parameters(), task, carry).query_nontransductive[-1]


if __name__ == "__main__":
    main()
