"""What every test shares."""

from __future__ import annotations

import os

import torch
from hypothesis import settings

# The tensors of the tests are small: more threads only wait for each other.
torch.set_num_threads(1)

# A change is judged by the same examples every time; at a developer's desk each run looks for new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("desk", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
