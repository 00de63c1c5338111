"""Runs whose processes train nothing."""

from typing import Any

from lightning_meta.cli.sweep.state import Run, State


class FakeRun(Run):
    """A run of `fake_child.py`, finished where that says so."""

    def __init__(self, arguments: list[str], own: list[str]) -> None:
        options = dict(one.removeprefix("--").partition("=")[::2] for one in arguments[1:])
        trainer = {"default_root_dir": options["root"], "max_steps": 10}
        self.arguments, self.own, self.fits = arguments, own, True
        self.settings: dict[str, Any] = {"experiment": options["experiment"], "seed_everything": 0, "trainer": trainer}

    @property
    def digest(self) -> str:
        return self.label

    def state_unlocked(self) -> State:
        folder = self.experiment / self.label
        kind = "finished" if (folder / "done").exists() else "interrupted"
        return State(kind, folder) if folder.exists() else State("waiting")


def fake_run(common: list[str], *own: str) -> FakeRun:
    return FakeRun([*common, *own], list(own))
