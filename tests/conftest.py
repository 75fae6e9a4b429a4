"""What every test shares."""

from __future__ import annotations

import torch

# The tensors of the tests are small: more threads only wait for each other.
torch.set_num_threads(1)
