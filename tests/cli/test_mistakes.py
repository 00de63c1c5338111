"""What the command line says of a mistake: one error, which names what is wrong and the nearest that exists."""

from pathlib import Path

import pytest
from torch import nn

from lightning_meta.cli import main
from lightning_meta.cli.options import configurations_first
from tests.cli.helpers import refused, small

QUICK = ["fit", "-c", "quickstart"]


class Broken(nn.Sequential):
    """A person's own backbone, with an error of its own."""

    def __init__(self, outputs: int) -> None:
        raise RuntimeError("of mine")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--model.iner.steps=3"], "iner"),
        (["--data.wayz=3"], "wayz"),
        (["--data.ways=9"], "data.ways is 9, but the validation split has 6 classes"),
        (["--data.shots=20"], "data.shots"),
        (["--data.meta_batch_size=0"], "data.meta_batch_size is 0, expected at least 1"),
        (["--model.inner.steps=-1"], "model.inner.steps is -1"),
        (["--trainer.max_steps=-1"], "trainer.max_steps is -1"),
        (["--model.backbone.channels=3"], "cannot take inputs of shape (6, 1, 28, 28)"),
        (["--data=OmniglotEpisodes", "--data.root=nowhere"], "nowhere"),
    ],
)
def test_mistakes_end_in_one_error(
    change: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = small(tmp_path)
    if change[0].startswith("--data="):
        arguments = [argument for argument in arguments if not argument.startswith("--data")]
    printed = refused(["fit", *arguments, *change], capsys)
    assert said in printed
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("--model.iner.steps=3", "model.iner.steps is not a setting of MAML: did you mean model.inner.steps?"),
        ("--model.optimizer.lrr=3", "optimizer.lrr is not a setting of Adam: did you mean model.optimizer.lr?"),
        (
            "--model.lr_scheduler=StepLR --model.lr_scheduler.gama=1",
            "of StepLR: did you mean model.lr_scheduler.gamma?",
        ),
        (
            "--model.lr_scheduler=ReduceLROnPlateau --model.lr_scheduler.monitor=val_loss",
            "monitor is not a setting of ReduceLROnPlateau: take pytorch_lightning.cli.ReduceLROnPlateau, which has a",
        ),
        ("--data.wayz 3", "data.wayz is not a setting of GlyphEpisodes: did you mean data.ways?"),
        ("--model.backbone.filterz=3", "is not a setting of Conv4: did you mean model.backbone.filters?"),
        ("--model.inner.optimizer.lrr=3", "of SGD: did you mean model.inner.optimizer.lr?"),
        ("--model.zzzzzz=3", "model.zzzzzz is not a setting of MAML: `lightning-meta fit --model.help MAML` shows all"),
        ("--trainer.max_step=3", "trainer.max_step is not a setting: did you mean trainer.max_steps?"),
        ("--trainer.bogus=3", "trainer.bogus is not a setting: `lightning-meta fit --help` shows all"),
        ("--checkpoint.montor=x", "did you mean checkpoint.monitor?"),
        ("--experimnt=x", "did you mean experiment?"),
        ("--print_confg", "did you mean print_config?"),
        ("--modle.inner.steps=3", "did you mean model?"),
        ("stray", "stray belongs to no option"),
        ("--ckpt_path", "expected one argument"),
        ("--", "error: -- names no setting: a setting is given as --KEY VALUE or --KEY=VALUE"),
        ("-- --trainer.max_steps=3", "error: -- names no setting"),
        ("--=3", "error: -- names no setting"),
        ("-", "error: - names no setting"),
    ],
)
def test_a_key_that_does_not_exist(change: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused([*QUICK, *change.split()], capsys)


@pytest.mark.parametrize(
    "option",
    [
        "--conf",
        "--con",
        "--c",
        "--cfg",
        "--configs",
        "--configuration",
        "--Config",
        "--config_file",
        "-C",
        "-conf",
        "-config",
    ],
)
def test_a_configuration_by_a_name_that_is_nearly_its_option(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    for given in ([option, "quickstart"], [f"{option}=quickstart"]):
        said = f"error: {option} is not an option: did you mean --config?"
        assert said in refused(["fit", *given, "--model.inner.steps=3"], capsys)


def test_other_options_are_not_nearly_that_of_a_configuration() -> None:
    others = [
        "--ckpt_path=a",
        "--checkpoint.monitor=b",
        "--print_config",
        "--experiment",
        "conf",
        "--trainer.max_steps=1",
    ]
    assert configurations_first([*others, "-cquickstart"]) == ["-cquickstart", *others]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            "--model.inner.steps=3",
            "model.inner.steps is given without a class: give --model CLASS before it, or a conf",
        ),
        ("quickstart --model.inner.steps=3", "model.inner.steps is given without a class"),
        ("--model.backbone.filters=3", "model.backbone.filters is given without a class: give --model CLASS before it"),
        (
            "--model=MAML --model.backbone.filters=3",
            "model.backbone.filters is given without a class: give --model.backb",
        ),
        ("--data.ways=3", "data.ways is given without a class: give --data CLASS before it, or a configuration"),
        ("--model=MetaLearner", "model is MetaLearner, which stands for all of its kind: give one of them"),
        ("--data=EpisodeDataModule", "data is EpisodeDataModule, which stands for all of its kind: give one of them"),
    ],
)
def test_settings_of_a_class_that_is_not_given(arguments: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(["fit", *arguments.split()], capsys)


def test_a_key_of_a_file_that_does_not_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    for content, said in {
        "trainer: {max_step: 3}": "trainer.max_steps?",
        "modle: {class_path: MAML}": "model?",
    }.items():
        path.write_text(content)
        assert f"did you mean {said}" in refused([*QUICK, "-c", str(path)], capsys)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("--model=Reptil", "model is Reptil, which is not a known class: did you mean Reptile?"),
        ("--data=Omniglot", "data is Omniglot, which is not a known class: did you mean OmniglotEpisodes?"),
        ("--model.backbone=Conv5", "did you mean Conv4?"),
        ("--model.inner.optimizer=Adm", "model.inner.optimizer is Adm, which is not a known class: did you mean Adam?"),
        ("--model.optimizer=AdmW", "did you mean AdamW?"),
        ("--model.help=Reptil", "model is Reptil, which is not a known class: did you mean Reptile?"),
        ("--model=Xyz", "`lightning-meta list methods` shows all"),
        ("--trainer.logger=Foo", "trainer.logger is Foo, which is not a known class: a class of your own is given as"),
        ("--model=mymodule.CAVIA", "model is mymodule.CAVIA, which cannot be imported: No module named 'mymodule'"),
        ("--model.help=mymodule.CAVIA", "model: the class cannot be imported: No module named 'mymodule'"),
        ("--model=json.CAVIA", "module 'json' has no attribute 'CAVIA'"),
        ("--model=torch.nn.Linear", "model is torch.nn.Linear, which is not a subclass of MetaLearner"),
        ("--model.lr_scheduler=StepLR", "model.lr_scheduler needs --model.lr_scheduler.step_size"),
        ("--model.backbone=torch.nn.Linear", "Linear needs --model.backbone.in_features and --model.backbone.out_feat"),
    ],
)
def test_a_class_that_does_not_exist(change: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused([*QUICK, change], capsys)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("--trainer.max_steps=abc", "trainer.max_steps is abc, expected int"),
        ("--model.inner.steps=1.5", "model.inner.steps is 1.5, expected int"),
        ("--model.outer_reduction=avg", "model.outer_reduction is avg, expected mean or sum"),
        ("--model.task_chunk=x", "model.task_chunk is x, expected int or auto"),
        ("--seed_everything=true", "seed_everything is True, expected a number"),
        ("--trainer.accelerator=gpux", "trainer: You selected an invalid accelerator name"),
        ("--trainer.devices=x", "trainer: `devices`"),
        ("--model.optimizer.lr=-1", "model.optimizer: Invalid learning rate: -1"),
        ("--model.backbone.filters=-2", "negative dimension"),
        (f"--model.backbone={__name__}.Broken", "of mine (test_mistakes.py, line "),
    ],
)
def test_a_value_that_does_not_fit(change: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = [f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    assert said in refused([*QUICK, *run, change], capsys)


def test_what_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    said = "--model and --data must be given, or a configuration that holds them: lightning-meta test -c NAME"
    assert said in refused(["test"], capsys)
    assert "MAML needs --model.backbone" in refused(["fit", "--model=MAML", "--data=GlyphEpisodes"], capsys)


def test_an_error_of_the_program_keeps_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("lightning_meta.algorithms.MAML.outer_loss", broken)
    with pytest.raises(KeyError, match="a bug"):
        main(["fit", *small(tmp_path), "--model.compile=false"])
