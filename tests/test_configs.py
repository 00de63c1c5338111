"""Every configuration runs, and says at its head what a person wants to know."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from lightning_meta.cli.command import main
from lightning_meta.cli.sweep import read_sweep
from lightning_meta.data import cifarfs
from lightning_meta.report.published import FILE, read_published
from tests.cli.test_command import SHORT_RUN, adapts
from tests.data import rgb_files

FOLDER = Path(__file__).parents[1] / "configs"
SWEEPS = sorted(FOLDER.joinpath("sweeps").glob("*.yaml"))
CONFIGS = [path for path in sorted(FOLDER.rglob("*.yaml")) if path not in SWEEPS]
OF_SOURCES = [path for path in CONFIGS if path.parent != FOLDER]
KNOWN = yaml.safe_load(FILE.read_text())
PUBLISHED = read_published()
OF_FIGURES = {key: figure["meta_steps"] for key, figure in KNOWN["figures"].items() if "meta_steps" in figure}
STATED = {
    r"omniglot/openai_o[15]5t?|mini_imagenet/openai_m[15]5t?": 100_000,
    r"omniglot/openai_o[15]20t?": 200_000,
    r"omniglot/finn_(5|20)w[15]s_maml(_noconv)?|mini_imagenet/finn_5w[15]s_(fo)?maml": 60_000,
    r"sinusoid/finn_10shot_maml": 70_000,
    r"sinusoid/openai_10shot_reptile": 30_000,
    r"figure3/\w+|omniglot/openai_combination": 40_000,
    r"omniglot/keras_reptile_5w[15]s": 2000,
    r"navigation/finn_maml": 500,
    r"learned_optimizer/\w+": 10_000 * 100 // 20,
}
ORDER = ["Published", "Inner loss", "Outer loss", "Ours"]
README = " ".join(FOLDER.parent.joinpath("README.md").read_text().split())
RGB = ("cifarfs", "fc100", "mini_imagenet", "tiered_imagenet")
SMALL = ["--trainer.max_steps=1", "--trainer.val_check_interval=1", "--model.compile=false", "--model.task_chunk=1"]
SMALL += ["--data.meta_batch_size=2", "--data.validation_tasks=2"]
SMALL += ["--data.test_tasks=2", "--trainer.logger=false", *SHORT_RUN]
SMALL_IMAGES = ["--data.ways=2", "--data.shots=1", "--data.train_shots=1", "--data.queries=1", "--data.train_queries=1"]


def name(path: Path) -> str:
    return str(path.relative_to(FOLDER).with_suffix(""))


def head(experiment: str) -> str:
    """The comment that a configuration begins with, in one line."""
    comment = FOLDER.joinpath(f"{experiment}.yaml").read_text().partition("\nexperiment:")[0]
    return " ".join(line.removeprefix("# ") for line in comment.splitlines())


def part(experiment: str, label: str) -> str:
    """What a head says after a label, up to the next label."""
    return re.split(r"(?:Length|Inner loss|Outer loss|Outer step|Ours): ", head(experiment).split(f"{label}: ", 1)[1])[
        0
    ]


def like(value: str, shown: str) -> str:
    """A number from a table, written as another one is: as many digits, and a zero before the point or none."""
    text = f"{float(value):.{len(shown.partition('.')[2])}f}"
    return text if shown.lstrip("-").startswith("0") else re.sub(r"^(-?)0\.", r"\1.", text)


def read_rows(path: str) -> list[dict[str, str]]:
    """A table of the repository, empty where it is not made yet."""
    file = FOLDER.parent / path
    return list(csv.DictReader(file.read_text().splitlines())) if file.exists() else []


TABLE_ROWS = [
    row
    for path in ("docs/report/table.csv", "docs/methods/table.csv")
    for row in read_rows(path)
    if row["members"] == "1" and row["metric"] == "accuracy"
]


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all configurations of a session."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="session")
def rgb_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small files of all colour data sets, two classes a split."""
    root = tmp_path_factory.mktemp("rgb")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rgb_files, "CLASSES", dict.fromkeys(rgb_files.CLASSES, 2))
        patch.setattr(rgb_files, "EACH", 4)
        for _, make, _ in rgb_files.KINDS.values():
            make(root)
    return root


@pytest.fixture(scope="session")
def array_files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Vectors of six classes, and small tasks of them."""
    root = tmp_path_factory.mktemp("arrays")
    np.save(root / "x.npy", np.random.default_rng(0).random((12, 49)))
    np.save(root / "y.npy", np.arange(6).repeat(2))
    arguments = [f"--data.{name}={root / name}.npy" for name in ("x", "y")]
    return [*arguments, "--data.validation_classes=2", "--data.test_classes=2", *SMALL_IMAGES]


def place(folder: str, request: pytest.FixtureRequest) -> list[str]:
    """Where the data of a configuration of this folder are, and small tasks of them."""
    if folder == "arrays":
        return request.getfixturevalue("array_files")
    if folder == "navigation":
        return ["--data.trajectories=3", "--data.horizon=5"]
    if folder not in ("omniglot", *RGB):
        return []
    if folder in RGB:
        request.getfixturevalue("monkeypatch").setattr(cifarfs, "IMAGES", 4)
    root = request.getfixturevalue("rgb_root" if folder in RGB else "omniglot_root")
    return [f"--data.root={root}", f"--data.cache_dir={request.getfixturevalue('caches')}", *SMALL_IMAGES]


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=name)
def test_every_configuration_runs(config: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    arguments = [*SMALL, f"--trainer.default_root_dir={tmp_path}", *place(config.parent.name, request)]
    if adapts(yaml.safe_load(config.read_text())["model"]["class_path"]):
        arguments.append("--model.inner.evaluation_steps=1")
    if config.stem == "mnist":
        arguments += [f"--data.root={request.getfixturevalue('mnist_root')}", *SMALL_IMAGES]
    command = ["fit", f"--config={config}", *arguments]
    if yaml.safe_load(config.read_text())["trainer"].get("devices", 1) == 1:
        assert main(command) == 0
    else:  # workers start the program anew, which would be the tests
        subprocess.run([sys.executable, "-m", "lightning_meta", *command], check=True, timeout=200)
    assert len(list(tmp_path.rglob("results.json"))) == 1


@pytest.mark.parametrize("config", OF_SOURCES, ids=name)
def test_heads_say_source_figure_and_reduction(config: Path) -> None:
    text = config.read_text()
    said = head(name(config))
    assert yaml.safe_load(text)["experiment"] == name(config)
    labels = re.findall(r"(Published|Length|Inner loss|Outer loss|Outer step|Ours): \S", said)
    assert [label for label in labels if label != "Length"] in (ORDER, [*ORDER[:2], "Outer step", "Ours"])


@pytest.mark.parametrize("config", OF_SOURCES, ids=name)
def test_heads_quote_the_published_figure_and_no_other(config: Path) -> None:
    """The figure that stands right after "Published:", and its protocol; or none, in words."""
    experiment, said = name(config), part(name(config), "Published")
    found = re.match(r"(\d+\.\d+)(?: ± (\d+\.\d+) \((transductive|non-transductive)\b)?", said)
    figure, bare = PUBLISHED.get(experiment), KNOWN["without_interval"].get(experiment)
    if figure:
        protocol = "transductive" if figure.transductive else "non-transductive"
        assert found and (float(found[1]), float(found[2]), found[3]) == (figure.mean, figure.half_width, protocol)
    else:
        assert (found and (float(found[1]), found[2])) == (bare and (bare, None))
    assert said.count(" ± ") == bool(figure)


def test_every_figure_is_that_of_a_configuration() -> None:
    assert PUBLISHED.keys() | KNOWN["without_interval"].keys() <= {name(path) for path in OF_SOURCES}
    assert not PUBLISHED.keys() & KNOWN["without_interval"].keys()


def test_every_configuration_has_its_length_and_says_where_it_is_ours() -> None:
    """Exactly one place gives it, and a head says "Length: ours" where no source does."""
    stated, chosen = OF_FIGURES | KNOWN["lengths"], KNOWN["chosen_lengths"]
    assert len(stated | chosen) == len(OF_FIGURES) + len(KNOWN["lengths"]) + len(chosen)
    for experiment in (name(path) for path in OF_SOURCES):
        planned = yaml.safe_load(FOLDER.joinpath(f"{experiment}.yaml").read_text())["trainer"]["max_steps"]
        assert (stated | chosen).get(experiment) == planned, experiment
        assert ("Length: ours" in head(experiment)) == (experiment in chosen), experiment
        assert experiment not in PUBLISHED or PUBLISHED[experiment].meta_steps == planned
    sweeps = {experiment for experiment in stated if experiment.startswith("figure3/")}
    assert stated.keys() | chosen.keys() == {name(path) for path in OF_SOURCES} | sweeps


def test_lengths_are_called_stated_where_the_sources_state_them() -> None:
    """As REFERENCE quotes the sources, and MAML's appendix for all of its classifiers."""
    for experiment, steps in (OF_FIGURES | KNOWN["lengths"]).items():
        assert [said for pattern, said in STATED.items() if re.fullmatch(pattern, experiment)] == [steps], experiment
    for experiment in KNOWN["chosen_lengths"]:
        assert not [pattern for pattern in STATED if re.fullmatch(pattern, experiment)], experiment


@pytest.mark.parametrize("sweep", SWEEPS, ids=name)
def test_every_sweep_has_runs_that_the_command_line_takes(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER.parent)
    settings = [f"--config={CONFIGS[0]}"] if sweep.stem == "shots_at_test" else []  # of whatever learner a person has
    for run in read_sweep(sweep, settings):
        with pytest.raises(SystemExit) as exit_:
            main([*run, "--print_config"])
        assert exit_.value.code == 0


@pytest.mark.parametrize("config", OF_SOURCES, ids=name)
def test_heads_say_what_the_committed_runs_came_to(config: Path) -> None:
    """Every accuracy is that of a run in a table, and an experiment in a table is quoted."""
    ours = part(name(config), "Ours")
    twin = re.match(r"as (o\d+t),", ours)  # one training, tested under both protocols
    experiment = f"{config.parent.name}/openai_{twin[1]}" if twin else name(config)
    rows = [row for row in TABLE_ROWS if row["experiment"] == experiment]
    figures = re.findall(r"(\S+) ± (\S+) \((transductive|non-transductive)\)", ours)
    if config.parent.name in ("navigation", "learned_optimizer"):  # whose tables are others
        assert not figures
        return
    assert ours.count("±") == len(figures)
    assert not rows or figures, f"a table holds {experiment}"
    if experiment == "arrays/maml_5w1s" and not rows:
        assert f"{figures[0][0]} ± {figures[0][1]} % after 10 inner steps" in README
        assert {figure[:2] for figure in figures} == {figures[0][:2]}
    elif figures:
        assert any(row_fits(row, figures, ours) for row in rows), (rows, ours)


def row_fits(row: dict[str, str], figures: list[tuple[str, str, str]], ours: str) -> bool:
    """Whether a head gives the figures of this row and its length."""
    fits = [
        row[column]
        and (mean, half_width) == (like(row[column], mean), like(row[f"{column}_half_width_95"], half_width))
        for mean, half_width, protocol in figures
        for column in [protocol.replace("-", "")]
    ]
    return all(fits) and f" {int(row['meta_steps']):,} meta-step" in ours.replace("meta- steps", "meta-steps")


@pytest.mark.parametrize(("experiment", "policy"), [("finn_maml", "MAML (TRPO)"), ("finn_pretrained", "pre-trained")])
def test_heads_of_navigation_agree_with_the_benchmark(experiment: str, policy: str) -> None:
    ours = part(f"navigation/{experiment}", "Ours")
    rows = [row for row in read_rows("benchmarks/results/navigation.csv") if row["policy"] == policy]
    by_step = {row["inner_steps"]: row for row in rows}
    figures = re.findall(r"(\S+) ± (\S+) (?:before|after (\d))", ours)
    assert ours.count("±") == len(figures) > 1
    for mean, half_width, step in figures:
        row = by_step[step or "0"]
        assert (mean, half_width) == (like(row["mean_return"], mean), like(row["half_width_95"], half_width))
    steps, tasks, seed, rate = (rows[0][column] for column in ("meta_steps", "tasks", "seed", "inner_rate"))
    assert f"{steps} meta-steps, seed {seed}: mean return on {tasks} unseen goals" in ours
    assert f"`python benchmarks/navigation.py --seed {seed} --steps {steps} --tasks {tasks}`" in ours
    config = yaml.safe_load(FOLDER.joinpath(f"navigation/{experiment}.yaml").read_text())
    kept = config["model"]["init_args"]["inner"]["optimizer"]["init_args"]["lr"]
    said = f"rate of {float(rate):g} in the first inner step and of {float(rate) / 2:g} in the others"
    assert said in ours and f"where this file keeps {kept:g}" in ours


@pytest.mark.parametrize("kind", ["quadratics", "mnist"])
def test_heads_of_learned_optimizers_agree_with_the_benchmark(kind: str) -> None:
    """A figure belongs to the optimizer that is named before it, or else to the learned one."""
    ours = part(f"learned_optimizer/{kind}", "Ours")
    rows = read_rows("benchmarks/results/learned_optimizer.csv")
    rows = [row for row in rows if row["problem"].partition(",")[0].lower() == kind]
    assert bool(rows) == ("±" in ours)
    optimizer, quoted = "learned (LSTM)", set()
    for said, mean, half_width in re.findall(r"\b(Adam|NAG|RMSprop|SGD)\b|(-?[\d.]+) ± ([\d.]+)", ours):
        if said:
            optimizer = said
            continue
        finals = [(row["final"], row["final_half_width_95"]) for row in rows if row["optimizer"] == optimizer]
        assert (mean, half_width) in [(like(final, mean), like(half, half_width)) for final, half in finals]
        quoted.add(optimizer)
    assert not rows or "learned (LSTM)" in quoted
    for row in rows[:1]:
        assert f"{int(row['meta_steps']):,}" in ours and f"seed {row['seed']}" in ours


def test_numbers_are_shown_like_others() -> None:
    assert [like("0.17590", ".176"), like("-38.938", "-38.94"), like("0.04047", "0.04")] == [".176", "-38.94", "0.04"]
