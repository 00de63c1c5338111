"""Real characters, drawn by mouse on the real page, are told apart by a checkpoint that comes with the package."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = pytest.mark.slow  # draws a minute long, as a hand would

TRIALS = 12  # 40 by `python benchmarks/studies/demo_trials.py`
LEAST = 0.85  # of the trials


@pytest.fixture
def characters(omniglot_root: Path, study: ModuleType) -> list[Path]:
    if not (omniglot_root / study.STROKES).is_dir():
        pytest.skip(f"the real data are not in the repository: LIGHTNING_META_ROOT holds no {study.STROKES}")
    found: list[Path] = study.unseen_characters(omniglot_root, study.default_checkpoint())
    return found


@pytest.mark.parametrize("form", ["served", "hosted"])
def test_the_right_bar_wins(form: str, browser: Any, characters: list[Path], study: ModuleType) -> None:
    with getattr(study, form)(study.default_checkpoint()) as address, study.opened(browser, address) as page:
        right = [study.run_trial(page, trial) for trial in study.draw_trials(characters, TRIALS)]
    assert sum(right) >= LEAST * TRIALS, right


def test_trials_use_unseen_characters_and_another_hand(characters: list[Path], study: ModuleType) -> None:
    training = study.split_of(study.default_checkpoint())["train"]
    assert len(characters) >= 30
    assert not {f"images_background/{folder.parent.name}/{folder.name}" for folder in characters} & set(training)
    trials = list(study.draw_trials(characters, 20))
    assert {trial.answer for trial in trials} == {0, 1, 2}
    for trial in trials:
        assert trial.query not in trial.examples
        points = [point for drawing in (*trial.examples, trial.query) for stroke in drawing for point in stroke]
        assert all(0 <= value <= 1 for point in points for value in point)
    assert list(study.draw_trials(characters, 20)) == trials
