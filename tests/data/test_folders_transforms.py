"""Augmentation of the tasks of folders: whose images, which random numbers, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from lightning_meta.cli import main
from lightning_meta.data.drawing import images
from lightning_meta.data.drawing.sampler import TaskDataset
from lightning_meta.data.files import image_cache
from lightning_meta.errors import MetaLearningError
from tests.cli.helpers import SHORT_RUN
from tests.data.folder_files import SIDE, episodes
from tests.data.tiny_episodes import assert_same

CROP = v2.Compose([v2.RandomCrop(SIDE, padding=2), v2.RandomHorizontalFlip()])


def test_each_transform_sees_its_own_images_of_training_tasks(split_tree: Path) -> None:
    plain, numbers, flip = episodes(split_tree, normalise=True), torch.arange(10), v2.RandomHorizontalFlip(p=1.0)
    expected = plain.draw("train", numbers)
    for part in ("support", "query"):
        data = episodes(split_tree, normalise=True, **{f"{part}_transform": flip})
        flipped = expected._replace(**{f"{part}_x": getattr(expected, f"{part}_x").flip(-1)})
        assert_same(data.draw("train", numbers), flipped)
        for split in ("validation", "test"):
            assert_same(data.draw(split, numbers), plain.draw(split, numbers))


def test_a_transform_may_give_floats(split_tree: Path) -> None:
    darken = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.ColorJitter(brightness=(0.5, 0.5))])
    expected = episodes(split_tree).draw("train", torch.arange(10))
    found = episodes(split_tree, query_transform=darken).draw("train", torch.arange(10))
    torch.testing.assert_close(found._replace(query_x=found.query_x * 2), expected)


def test_augmentation_is_a_function_of_seed_and_task(split_tree: Path) -> None:
    data = episodes(split_tree, support_transform=CROP, query_transform=CROP)
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    together = data.draw("train", torch.arange(12))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    alone = data.draw("train", torch.tensor([11, 3]))
    for task, number in enumerate((11, 3)):
        assert torch.equal(alone.support_x[task], together.support_x[number])
        assert torch.equal(alone.query_x[task], together.query_x[number])
    queries_alone = episodes(split_tree, query_transform=CROP).draw("train", torch.arange(12))
    assert torch.equal(queries_alone.query_x, together.query_x)
    plain = episodes(split_tree).draw("train", torch.arange(12))
    assert (together.support_x != plain.support_x).flatten(1).any(1).sum() >= 10
    other = episodes(split_tree, support_transform=CROP, seed=1).draw("train", torch.arange(12))
    assert not torch.equal(other.support_x, together.support_x)


class Mark(v2.Transform):
    """Fills an image with a random byte, of which support and query images must not have the same."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return torch.full_like(inpt, int(torch.randint(256, ())))


def test_support_and_query_have_random_numbers_of_their_own(split_tree: Path) -> None:
    data = episodes(split_tree, support_transform=Mark(), query_transform=Mark())
    episode = data.draw("train", torch.arange(100))
    support, query = (x[:, :, 0, 0, 0] for x in (episode.support_x, episode.query_x))
    assert (support[:, 0] == query[:, 0]).float().mean() < 0.05  # one in 256 by chance
    assert (support[:, 0] == support[:, 1]).float().mean() < 0.05
    assert support.unique().numel() > 150


def test_tasks_without_queries_need_no_transform_of_them(split_tree: Path) -> None:
    data = episodes(split_tree, train_queries=0, support_transform=CROP, query_transform=CROP)
    assert data.draw("train", torch.arange(3)).query_x.shape == (3, 0, 3, SIDE, SIDE)
    assert data.draw("train", torch.arange(0)).support_x.shape == (0, 4, 3, SIDE, SIDE)


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (
            v2.RandomCrop(4),
            "data.query_transform gives torch.uint8 (3, 4, 4), expected uint8 or floats of shape (3, 6,",
        ),
        (v2.RandomCrop(8), "data.query_transform cannot transform uint8 images of shape (3, 6, 6) (Required crop size"),
        (v2.ToDtype(torch.int64), "data.query_transform gives torch.int64 (3, 6, 6)"),
    ],
)
def test_transforms_that_give_no_such_image_are_refused(split_tree: Path, transform: v2.Transform, said: str) -> None:
    with pytest.raises(MetaLearningError, match=re.escape(said)):
        episodes(split_tree, query_transform=transform).draw("train", torch.arange(2))


def test_workers_draw_the_same_from_a_shared_map(split_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"support_transform": CROP, "meta_batch_size": 4, "test_tasks": 3}
    expected = episodes(split_tree, **settings)
    for module in (image_cache, images):
        monkeypatch.setattr(module, "MAX_IN_MEMORY", 0)
    data = episodes(split_tree, num_workers=1, **settings)
    data.setup("fit")
    from_workers = torch.utils.data.DataLoader(
        TaskDataset(data, "train"),
        batch_size=None,
        sampler=[(torch.arange(4), 0), (torch.arange(4, 8), 0)],
        num_workers=2,
    )
    for batch, episode in enumerate(from_workers):
        assert_same(episode, expected.draw("train", torch.arange(4) + 4 * batch))
    (tested,) = data.test_dataloader()
    assert_same(tested, expected.draw("test", torch.arange(3)))


@pytest.mark.slow
def test_a_run_with_augmentation(split_tree: Path, tmp_path: Path) -> None:
    arguments = ["--data=FolderEpisodes", f"--data.root={split_tree}", "--data.image_size=6", "--data.ways=2"]
    arguments += ["--data.support_transform=RandomHorizontalFlip", "--data.support_transform.p=0.3"]
    nested = "{class_path: torchvision.transforms.v2.Compose, init_args: {transforms: [{class_path: "
    nested += "torchvision.transforms.v2.RandomCrop, init_args: {size: 6, padding: 1}}]}}"
    arguments += [f"--data.query_transform={nested}", "--data.meta_batch_size=2", "--data.test_tasks=3"]
    arguments += ["--model=MAML", "--model.backbone=Conv4", "--model.backbone.channels=3", "--model.backbone.filters=4"]
    arguments += ["--model.compile=false", "--trainer.max_steps=2", f"--trainer.default_root_dir={tmp_path / 'runs'}"]
    arguments += ["--data.validation_tasks=2", "--trainer.val_check_interval=2", "--model.inner.evaluation_steps=1"]
    assert main(["fit", *arguments, *SHORT_RUN]) == 0
    assert len(list(tmp_path.rglob("results.json"))) == 1
