"""Fine-tuning, a baseline: Chen et al., "A Closer Look at Few-shot Classification", arXiv 1904.04232."""

from lightning_meta.algorithms.joint_training import JointTraining
from lightning_meta.params import Params


class FineTuning(JointTraining):
    """Train a classifier of all training classes; for a new task, put a new last layer on its features and train on.

    The new layer starts from zero, and the inner loop adapts it together with the whole network, where the baseline of
    Chen et al. keeps the features fixed. With an outer optimizer of rate 0, the network stays as it was drawn: training
    from scratch on the support set.
    """

    def adapted_params(self, params: Params) -> Params:
        """The backbone with a new last layer."""
        return super().adapted_params(params) | self.head.zeros()
