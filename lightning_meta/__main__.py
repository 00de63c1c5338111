"""``python -m lightning_meta``."""

import sys

from lightning_meta.cli import main

sys.exit(main())
