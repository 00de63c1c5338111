"""`lightning-meta adapt` from folders of pictures to tables, sheets and models; what it leaves out and refuses."""

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from lightning_meta.cli import main
from lightning_meta.data.files.pictures import Preprocessing
from lightning_meta.errors import MetaLearningError
from lightning_meta.inference import FewShotClassifier, load_learner, pretrained, read_pictures, save_learner
from lightning_meta.learner_file import describe_checkpoint
from tests.cli.helpers import refused
from tests.cli.pictures import STROKES, class_folder, draw

NAME = "omniglot_maml_5w1s"


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """One drawing of each of three classes."""
    return class_folder(tmp_path / "known")


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    """Two others of each, by class."""
    return class_folder(tmp_path / "unknown", shifts=(-3, 4))


def arguments(known: Path, *query: Path, **options: Any) -> list[str]:
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return ["adapt", "--ckpt", NAME, "--support", str(known), "--query", *map(str, query), *given]


def answer(known: Path, *query: Path, **options: Any) -> Any:
    """The content of the JSON file."""
    out = known.parent / "answer.json"
    assert main(arguments(known, *query, out=out, **options)) == 0
    return json.loads(out.read_text())


def test_it_predicts_what_the_estimator_predicts(
    known: Path, unknown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = sorted(unknown.glob("*/*.png"))
    expected = FewShotClassifier(NAME).fit(known).predict_proba(files)
    out = tmp_path / "out.csv"
    assert main(arguments(known, unknown, out=out)) == 0
    printed = capsys.readouterr().out
    with out.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == [str(path) for path in files]
    written = np.array([[float(row[f"p({name})"]) for name in sorted(STROKES)] for row in rows])
    np.testing.assert_allclose(written, expected, rtol=1e-4, atol=1e-6)
    for row, p in zip(rows, expected, strict=True):
        assert row["class"] == sorted(STROKES)[p.argmax()] == row["true_class"]
        assert float(row["entropy_bits"]) == pytest.approx(-sum(p * np.log2(p)), rel=1e-4, abs=1e-6)
    assert "accuracy 100.0 % (6 of 6 pictures; 95 % interval 61.0 to 100.0 %, Wilson)" in printed
    assert "by 10 inner steps" in printed
    assert "6 to predict, each alone" in printed
    assert [line.split()[-3:] for line in printed.splitlines() if line.startswith("1  box")] == [["2", "0", "0"]]


def test_names_that_a_spreadsheet_would_compute_are_text(
    known: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of files, of predicted classes and of true ones; JSON has them as they are."""
    monkeypatch.chdir(tmp_path)
    (known / "box").rename(known / "=1+1")
    shutil.copytree(known / "=1+1", Path("@pile") / "=1+1")
    for name in ("out.csv", "out.json"):
        assert main(arguments(known, Path("@pile"), out=name)) == 0
    with Path("out.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["file"], row["class"], row["true_class"]) == ("'@pile/=1+1/0.png", "'=1+1", "'=1+1")
    assert all(name[0] not in "=+-@" for name in row)
    (prediction,) = json.loads(Path("out.json").read_text())["predictions"]
    assert (prediction["file"], prediction["class"]) == ("@pile/=1+1/0.png", "=1+1")


def test_pictures_without_a_class_have_no_accuracy(known: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pile = known.parent / "pile"
    pile.mkdir()
    draw("line", 5).save(pile / "a.png")
    found = answer(known, pile, steps=2)
    assert found["accuracy"] is found["confusion"] is found["predictions"][0]["true_class"] is None
    assert found["predictions"][0]["class"] == "line"
    assert found["inner_steps"] == 2
    assert "accuracy" not in capsys.readouterr().out


def test_both_protocols_are_said_and_differ(known: Path, unknown: Path) -> None:
    alone = answer(known, unknown)
    assert main([*arguments(known, unknown, out=known.parent / "together.json"), "--together"]) == 0
    together = json.loads((known.parent / "together.json").read_text())
    assert (alone["protocol"], together["protocol"]) == ("non-transductive", "transductive")
    assert alone["predictions"][0]["probabilities"] != together["predictions"][0]["probabilities"]


def test_more_classes_than_outputs_are_told_apart_by_prototypes(
    known: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for turn in (90, 180, 270):
        folder = known / f"line{turn}"
        folder.mkdir()
        draw("line", turn // 10).rotate(turn // 2, fillcolor=255).save(folder / "0.png")
    found = answer(known, known / "box" / "0.png")
    assert (found["head"], found["inner_steps"], len(found["classes"])) == ("prototypes", 0, 6)
    assert "6 classes are more than the network's outputs" in capsys.readouterr().err


def test_the_opposite_polarity_is_said(known: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = known.parent / "light.png"
    Image.eval(draw("cross"), lambda value: 255 - value).save(path)
    found = answer(known, path)
    assert found["predictions"][0]["class"] == "cross"
    assert "--query: 1 of 1 pictures is light on dark" in capsys.readouterr().err


def test_pictures_of_any_kind_are_read_and_others_named_and_left_out(
    known: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pile = known.parent / "pile"
    pile.mkdir()
    line = draw("line")
    line.convert("RGB").convert("CMYK").save(pile / "cmyk.jpg")
    Image.fromarray((np.asarray(line).astype(np.uint16)) * 257).save(pile / "deep.png")
    line.convert("P").save(pile / "palette.png")
    line.save(pile / "moving.gif", save_all=True, append_images=[draw("box")])
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees
    line.rotate(90).save(pile / "turned.png", exif=exif)
    line.save(pile / "whole.png")
    (pile / "cut.png").write_bytes((pile / "whole.png").read_bytes()[:60])
    (pile / "text.png").write_text("not a picture")
    (pile / "notes.md").write_text("not named as a picture")
    Image.new("1", (10_000, 10_000)).save(pile / "huge.png")
    found = answer(known, pile)
    readable = ["cmyk.jpg", "deep.png", "moving.gif", "palette.png", "turned.png", "whole.png"]
    assert [Path(row["file"]).name for row in found["predictions"]] == readable
    assert {row["class"] for row in found["predictions"]} == {"line"}
    assert len(found["left_out"]) == 3
    said = capsys.readouterr().err
    assert "3 of 9 pictures to predict could not be read and are left out" in said
    assert all(f"left out: {pile / name}" in said for name in ("cut.png", "text.png", "huge.png"))
    assert "notes.md" in said


def test_folders_that_are_no_class_and_pictures_that_were_learned_from_are_said(
    known: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = known.parent / "query"
    shutil.copytree(known / "box", query / "crate")
    found = answer(known, query, known / "box")
    assert found["accuracy"] is None
    said = capsys.readouterr().err
    assert "crate of --query is not among the classes" in said
    assert "1 of the pictures to predict is among those learned from" in said


def test_every_output_is_written(known: Path, unknown: Path, tmp_path: Path) -> None:
    places = {"sheet": "s.png", "html": "s.html", "export": "m.onnx"}
    found = answer(known, unknown, **{name: tmp_path / place for name, place in places.items()})
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 500
    assert tmp_path.joinpath("s.html").read_text(encoding="utf-8").count("<img ") == 6
    x, _ = read_pictures(sorted(unknown.glob("*/*.png")), Preprocessing.from_plain(found["preprocessing"]))
    (outputs,) = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": x.numpy()})
    expected = [list(row["probabilities"].values()) for row in found["predictions"]]
    np.testing.assert_allclose(torch.tensor(outputs).softmax(1), expected, atol=1e-5)
    assert not list(tmp_path.glob(".*"))


def test_a_program_of_torch_export_is_written(known: Path, unknown: Path, tmp_path: Path) -> None:
    assert main(arguments(known, unknown, export=tmp_path / "m.pt2")) == 0
    program = torch.export.load(tmp_path / "m.pt2").module()
    x, _ = read_pictures([draw("box", 2)], Preprocessing.from_plain(load_learner(NAME).trained_on["preprocessing"]))
    assert program(x).argmax(1).tolist() == [sorted(STROKES).index("box")]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("omniglot_maml_5w1", "did you mean omniglot_maml_5w1s"),
        ("pickled.ckpt", "only if you trust who made it: trust=True, or --trust"),
        ("curves.safetensors", "was trained on SinusoidEpisodes and takes no pictures"),
    ],
)
def test_checkpoints_that_will_not_do_are_refused(
    name: str, said: str, known: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(known.parent)
    torch.save({"state_dict": Path("an object")}, "pickled.ckpt")
    learner = load_learner(NAME)
    learner.trained_on = {"data": "SinusoidEpisodes"}
    save_learner(learner, "curves.safetensors")
    assert said in refused(["adapt", "--ckpt", name, "--support", "known", "--query", "known"], capsys)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"support": "nowhere"}, "--support is nowhere, which does not exist"),
        ({"support": "known/box"}, "known/box holds no folders"),
        ({"support": "hollow"}, "hollow/empty holds no pictures"),
        ({"support": "single"}, "--support is single, which holds the one class box"),
        ({"support": "broken"}, "broken/text/0.png is not a picture"),
        ({"query": "nowhere"}, "--query is nowhere, which does not exist"),
        ({"query": "hollow/empty"}, "--query is hollow/empty, which holds no pictures"),
        ({"query": "broken/text"}, "none of the 1 pictures can be read; broken/text/0.png is not a picture"),
        ({"steps": "-1"}, "steps is -1"),
        ({"steps": "many"}, "--steps: invalid int value: 'many'"),
        ({"out": "old.txt"}, "--out is old.txt, expected a file that ends in .csv or .json"),
        ({"out": "nowhere/a.csv"}, "there is no folder nowhere"),
        ({"sheet": "known/box/0.png"}, "--sheet is known/box/0.png, which is one of the pictures that are read"),
    ],
)
def test_bad_input_is_refused_and_costs_no_results(
    changes: dict[str, str], said: str, known: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(known.parent)
    Path("hollow/empty").mkdir(parents=True)
    class_folder(Path("single"), ["box"])
    class_folder(Path("broken"), ["box"])
    Path("broken/text").mkdir()
    Path("broken/text/0.png").write_text("text")
    Path("old.csv").write_text("results")
    before = {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()}
    options = {"ckpt": NAME, "support": "known", "query": "known", "out": "old.csv"} | changes
    error = refused(["adapt", *(part for name, value in options.items() for part in (f"--{name}", value))], capsys)
    assert said in error
    assert {path: path.stat().st_mtime_ns for path in Path().rglob("*") if path.is_file()} == before


def test_checkpoints_are_listed_with_their_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "checkpoints"]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name} " in printed for name in pretrained())
    about, text = describe_checkpoint(pretrained()[NAME]), printed.partition(f"{NAME} ")[2]
    alone, together = ([f"{100 * value:.2f}" for value in about["results"][key]] for key in ("alone", "together"))
    tasks = f"{about['results']['tasks']:,} test tasks"
    figures = f"{' ± '.join(alone)} % queries alone, {' ± '.join(together)} % all queries in one batch"
    assert f"accuracy on {tasks}: {figures}" in text
    assert f"OmniglotEpisodes, split finn, {about['meta_steps']:,} meta-steps" in text
    assert f"{about['command']}\n" in text
    assert f"lightning-meta test -c omniglot/finn_5w1s_maml --ckpt_path {NAME} --data.root DIR\n" in text


@pytest.mark.parametrize("kind", ["pipe", "pipe.png", "link", "device"])
def test_a_pipe_or_a_device_is_refused_as_a_picture(
    kind: str, known: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind != "device":
        os.mkfifo(tmp_path / "made" if kind == "link" else path)
    if kind == "link":
        path.symlink_to(tmp_path / "made")
    out = tmp_path / "out.csv"
    assert f"--query is {path}, which is not a regular file" in refused(arguments(known, path, out=out), capsys)
    with pytest.raises(MetaLearningError, match="is not a regular file"):
        FewShotClassifier(NAME).fit(known).predict([path])
    assert not out.exists()
