"""Names and files that do harm: no run costs the report more than a line, and no name acts where it is shown."""

import csv
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_meta.report import figures
from lightning_meta.report.command import main

markdown = pytest.importorskip("markdown", reason="the group `docs` is not installed: make setup")

Make = Callable[..., Any]

NAMES = {
    "markup": "<img src=x onerror=alert(1)>",
    "link": "[click](http://example.org)",
    "cell": "a|b`c`",
    "emphasis": "_a_ *b* **c** ~~d~~ $x$",
    "entity": "&lt;b&gt;",
    "formula": "=1+1",
    "formula of a name": "@SUM(A1)",
    "formula behind a blank": "  =cmd|' /C calc'!A0",
    "formula behind a tab": "\t=1",
    "formula in full width": "\uff1d1+1",
    "minus": "-2+3",
    "TeX": r"\input{/etc/passwd} 5% & #1 $x$ {a} ~^_",
    "argument of TeX's row": "[1ex] *",
    "colour": "\x1b[31mred\x1b[0m",
    "title of a terminal": "\x1b]0;owned\x07",
    "lines": "a\nb\r\nc",
    "reversed": "a\u202egnp.exe",
    "heading": "# a",
    "mathtext": r"$\frac{",
    "C1": "a\x9b31m",
}


@pytest.fixture
def reported(
    tmp_path: Path, make_run: Make, make_entry: Make, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Any]:
    """The report of a run in which a name stands wherever a file can put one: Markdown, rows of the CSV, LaTeX."""

    def report(name: str) -> tuple[str, list[dict[str, str]], str]:
        entry = make_entry([0.2, 0.9], device=name, command=name, experiment=name, checkpoint=f"{name}.ckpt")
        make_run("x", [entry], validation={250: 0.5, 500: 0.6, 750: 0.7})
        again = make_run("x", [entry | {"checkpoint": "best.ckpt"}], max_steps=2000)
        config = yaml.safe_load((again / "config.yaml").read_text())
        config["experiment"] = name
        config["model"]["init_args"]["note"] = config["data"]["init_args"]["split"] = name
        config["checkpoint"]["monitor"] = name
        config["data"]["class_path"] = config["model"]["class_path"] = f"mine.{name.replace('.', '')}"
        (again / "config.yaml").write_text(yaml.safe_dump(config))
        (tmp_path / "logs" / "broken" / name.replace("/", "")).mkdir(parents=True)
        (tmp_path / "logs" / "broken" / name.replace("/", "") / "config.yaml").write_text("a: [")
        assert main([str(tmp_path / "logs")]) == 0
        printed = capsys.readouterr()
        assert all(character.isprintable() or character == "\n" for character in printed.out + printed.err)
        written = tmp_path / "logs" / "report"
        texts = [(written / f"table.{suffix}").read_text(encoding="utf-8") for suffix in ("md", "csv", "tex")]
        assert all(character.isprintable() or character == "\n" for text in texts for character in text)
        return texts[0], list(csv.DictReader(texts[1].splitlines())), texts[2]

    return report


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_is_shown_and_does_nothing(name: str, reported: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    if name not in (NAMES["mathtext"], NAMES["lines"]):  # figures take seconds
        monkeypatch.setattr(figures, "draw_all", lambda rows, protocol: {})
    text, records, tex = reported(name)
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)

    page = markdown.markdown(text, extensions=["tables"])
    assert set(re.findall(r"<(\w+)", page)) <= {"table", "thead", "tbody", "tr", "th", "td", "p", "ul", "li", "code"}
    assert page.count("<tr>") == 3
    assert page.count("<td>") == 2 * 16
    readable = re.sub("<[^>]+>", "", page)
    for entity, letter in {"&lt;": "<", "&gt;": ">", "&#126;": "~", "&#36;": "$", "&#35;": "#", "&#45;": "-"}.items():
        readable = readable.replace(entity, letter)
    assert readable.replace("&amp;", "&").count(shown.strip()) >= 6

    for record in records:
        assert not any(value.lstrip()[:1] in ("=", "@", "\uff1d", "\uff0b") for value in record.values())
        assert all(value[:1] not in ("+", "-") or float(value) < 0 for value in record.values())

    (body,) = re.findall(r"\\midrule\n(.*)\\bottomrule", tex, re.DOTALL)
    commands = set(re.findall(r"\\([A-Za-z]+)", body))
    assert commands <= {
        "pm", "midrule", "textbf", "textbackslash", "textasciitilde", "textasciicircum", "textless", "textgreater",
        "textbar", "textasciigrave",
    }  # fmt: skip
    assert len(re.findall(r"(?<!\\)&", body)) == 2 * 5
    assert not re.search(r"(?<!\\)[%#_~^]|^[\[*]", body, re.MULTILINE)


BAD: dict[str, tuple[str, Callable[[Path], object]]] = {
    "half a CSV": ("metrics.csv", lambda path: path.write_text(path.read_text()[:-9])),
    "a CSV in Latin-1": ("metrics.csv", lambda path: path.write_bytes(b"step,val_loss\n1,\xe9\n")),
    "a CSV of binary data": ("metrics.csv", lambda path: path.write_bytes(bytes(range(256)) * 10)),
    "a CSV with one huge cell": ("metrics.csv", lambda path: path.write_text(f"step\n{'9' * 200_000}\n")),
    "a CSV of huge steps": ("metrics.csv", lambda path: path.write_text(f"step,val_loss\n{'9' * 400},1\n")),
    "a huge CSV": ("metrics.csv", lambda path: os.truncate(path, 2**28)),
    "a pipe for a CSV": ("metrics.csv", lambda path: (path.unlink(), os.mkfifo(path))),
    "a folder for a CSV": ("metrics.csv", lambda path: (path.unlink(), path.mkdir())),
    "a bomb": ("config.yaml", lambda path: path.write_text(_bomb())),
    "deep YAML": ("config.yaml", lambda path: path.write_text("[" * 10_000)),
    "huge YAML": ("config.yaml", lambda path: os.truncate(path, 2**40)),
    "YAML of another program": ("config.yaml", lambda path: path.write_text("version: 2\nservices: {}\n")),
    "YAML in UTF-16": ("config.yaml", lambda path: path.write_bytes(path.read_text().encode("utf-16"))),
    "YAML with code": ("config.yaml", lambda path: path.write_text("!!python/object/apply:os.system [ls]")),
    "a pipe for YAML": ("config.yaml", lambda path: (path.unlink(), os.mkfifo(path))),
    "a device for YAML": ("config.yaml", lambda path: (path.unlink(), path.symlink_to("/dev/zero"))),
    "a folder for YAML": ("config.yaml", lambda path: (path.unlink(), path.mkdir())),
    "a list for a name": ("config.yaml", lambda path: path.write_text(path.read_text() + "ckpt_path: [1]\n")),
    "results of another program": ("checkpoints/results.json", lambda path: path.write_text('{"accuracy": 0.9}')),
    "half of the results": ("checkpoints/results.json", lambda path: path.write_text(path.read_text()[:100])),
    "huge results": ("checkpoints/results.json", lambda path: os.truncate(path, 2**40)),
    "deep results": ("checkpoints/results.json", lambda path: path.write_text("[" * 100_000)),
    "results in Latin-1": ("checkpoints/results.json", lambda path: path.write_bytes(b'[{"split": "\xe9"}]')),
    "a pipe for results": ("checkpoints/results.json", lambda path: (path.unlink(), os.mkfifo(path))),
    "an accuracy of 90": ("checkpoints/results.json", lambda path: _change(path, mean=90.0)),
    "an endless training": ("checkpoints/results.json", lambda path: _change(path, minutes=float("inf"))),
    "a training of -5 minutes": ("checkpoints/results.json", lambda path: _change(path, minutes=-5)),
    "countless meta-steps": ("checkpoints/results.json", lambda path: _change(path, meta_steps=10**400)),
    "an ensemble of none": ("checkpoints/results.json", lambda path: _change(path, members=0)),
}


def _bomb() -> str:
    lines = [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 20)]
    return "\n".join(["a0: &a0 [x]", *lines])


def _change(path: Path, mean: float | None = None, **changes: Any) -> None:
    (entry,) = json.loads(path.read_text())
    if mean is not None:
        entry["metrics"]["query_accuracy"]["mean"] = [mean, mean]
    path.write_text(json.dumps([entry | changes]))


@pytest.mark.parametrize(("file", "spoil"), BAD.values(), ids=BAD)
def test_a_bad_file_costs_a_line(
    file: str, spoil: Callable[[Path], object], tmp_path: Path, make_run: Make, make_entry: Make,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(figures, "draw_all", lambda rows, protocol: {})
    make_run("sound", [make_entry([0.2, 0.9])])
    bad = make_run("bad", [make_entry([0.2, 0.9])], validation={250: 0.5})
    spoil(bad / file)
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert "| sound |" in printed.out
    *notes, written = printed.err.splitlines()
    assert "written to" in written
    assert len(notes) <= 1
    assert all(str(bad) in note and len(note) < 500 for note in notes)
    assert notes or "| bad |" in printed.out
