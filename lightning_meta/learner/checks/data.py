"""What is checked of the data that a learner is given."""

from lightning_meta.episode import Episode
from lightning_meta.errors import MetaLearningError


def refuse_no_queries(queries: int, algorithm: str) -> None:
    """Refuse training episodes without queries for an algorithm that learns from them."""
    if queries < 1:
        raise MetaLearningError(f"data.train_queries is {queries}, but {algorithm} learns from queries: raise it")


def refuse_no_classes(found: int, data: str) -> None:
    """Refuse to train a classifier on classes that the data do not number."""
    if not found:
        raise MetaLearningError(
            f"data.class_path is {data}, whose tasks do not say which classes their labels are: joint training needs a "
            "data module of this package that draws from classes, such as OmniglotEpisodes or ArrayEpisodes"
        )


def refuse_regression(episode: Episode, data: str, algorithm: str) -> None:
    """Refuse targets that are no labels."""
    if episode.support_y.is_floating_point():
        raise MetaLearningError(
            f"data.class_path is {data}, whose targets are real values, but {algorithm} compares classes: take MAML or "
            "another algorithm with an inner loop, and model.loss torch.nn.functional.mse_loss"
        )


def refuse_other_classes(own: int, found: int) -> None:
    """Refuse to go on training a classifier on other classes."""
    if own != found:
        raise MetaLearningError(
            f"the classifier tells {own} training classes apart, but what it is to go on from or be trained on has "
            f"{found}: give data and checkpoint of one run, as its config.yaml names them, or start anew"
        )
