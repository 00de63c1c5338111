"""What the shipped checkpoints say of themselves is so."""

import math
from collections import deque
from typing import Any

import pytest
import torch

from lightning_meta import data
from lightning_meta.data import ImageEpisodes
from lightning_meta.inference import load_learner, pretrained
from lightning_meta.learner_file import describe_checkpoint

TASKS = 100


@pytest.mark.slow
@pytest.mark.parametrize("name", pretrained())
def test_a_shipped_checkpoint_is_as_good_as_it_says(name: str, request: pytest.FixtureRequest) -> None:
    about = describe_checkpoint(pretrained()[name])
    learner, results = load_learner(name), about["results"]
    settings: dict[str, Any] = about["data_settings"]
    kind = getattr(data, about["data"])
    if issubclass(kind, ImageEpisodes):
        settings = settings | {"root": str(request.getfixturevalue("omniglot_root"))}
    source = kind(**settings)
    source.connect(learner.training_batches(), learner.evaluation_batches())
    episode = source.draw("test", torch.arange(TASKS))
    every = learner.adapted_weights
    learner.adapted_weights = lambda *task: deque(every(*task), 1)  # queries are classified after the last step alone
    predictions = learner.all_predictions(episode)
    for key, outputs in (("together", predictions.query), ("alone", predictions.query_nontransductive)):
        if results["kind"] == "accuracy":
            values = (outputs[:, -1].argmax(-1) == episode.query_y).double().mean(1)
        else:
            values = (outputs[:, -1] - episode.query_y).square().double().flatten(1).mean(1)
        mean, half_width = results[key]
        # The first of the very tasks that the figure is a mean over: 4 standard errors of these leave 1 in 10,000.
        tolerance = 4 * values.std().item() / math.sqrt(TASKS) + half_width
        assert abs(values.mean().item() - mean) <= tolerance, (key, values.mean().item(), mean)
