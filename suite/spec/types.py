"""Types for the options of components and recipes; a constructor's annotation is also its validation.

A component's options are read from its ``__init__`` without importing it (see :mod:`suite.spec.components`), so only
the names defined here, ``bool int float str list Literal`` and ``X | None`` may annotate an option.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

# A nested component: a name, or a mapping with ``name`` and that component's own options.
# It reaches the constructor as a resolved {"name": ..., option: value} mapping.
PointwiseOption = str | dict[str, Any]
