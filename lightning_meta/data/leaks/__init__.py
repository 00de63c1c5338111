"""Whether data leak: what `lightning-meta check` compares."""

from lightning_meta.data.leaks.comparisons import Finding, find_leaks

__all__ = ["Finding", "find_leaks"]
