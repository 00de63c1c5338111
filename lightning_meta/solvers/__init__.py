"""Solvers on vectors: conjugate gradient and the step of a trust region."""

from lightning_meta.solvers.conjugate_gradient import conjugate_gradient
from lightning_meta.solvers.trust_region import Outcome, TrustRegion

__all__ = [
    "Outcome",
    "TrustRegion",
    "conjugate_gradient",
]
