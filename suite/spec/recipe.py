"""The recipe of a run: how it is optimised, regularised, averaged, bounded and evaluated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from suite.spec.types import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Probability


class Strict(BaseModel):
    """A mapping with no unknown key, no silent conversion (a bool is not a number) and no NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class RandomLength(Strict):
    """Random sequence lengths (Merity et al. 2018, section 5).

    ``base = bptt`` with probability ``1 - half_probability``, else ``bptt / 2``; the length is
    ``max(minimum, int(Normal(base, std)))``, at most ``bptt + max_excess`` where that is set, and the step's learning
    rate is scaled by ``length / bptt``.
    """

    half_probability: Probability = 0.05
    std: NonNegativeFloat = 5.0
    minimum: PositiveInt = 5
    max_excess: NonNegativeInt | None = None


class Sgd(Strict):
    """Plain stochastic gradient descent with weight decay added to the gradient."""

    name: Literal["sgd"] = "sgd"
    lr: PositiveFloat = 20.0
    weight_decay: NonNegativeFloat = 0.0


class AdamW(Strict):
    """AdamW (Loshchilov and Hutter 2019); decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    beta1: Probability = 0.9
    beta2: Probability = 0.999


class NonMonotone(Strict):
    """NT-ASGD: average once validation has not improved on its best of ``patience`` evaluations ago."""

    trigger: Literal["non-monotone"]
    patience: PositiveInt = 5
    late_learning_rate: bool = Field(
        False, description="scale the learning rate by the length of the step before, as torch.optim.ASGD does"
    )


class FromEpoch(Strict):
    """ET-ASGD: average from the start of a given epoch (Ganea et al. 2019; Parthiban et al. 2021)."""

    trigger: Literal["epoch"]
    epoch: PositiveInt = 200
    late_learning_rate: bool = Field(
        False, description="scale the learning rate by the length of the step before, as torch.optim.ASGD does"
    )


class Schedule(Strict):
    """Learning rate over steps: constant after a linear warm-up, or one cycle (Smith and Topin 2018).

    ``one-cycle`` warms up over ``warmup_steps`` and then follows a cosine to ``final_fraction`` of the peak at the
    last step of the budget.
    """

    name: Literal["constant", "one-cycle"] = "constant"
    warmup_steps: NonNegativeInt = 0
    final_fraction: Probability = 0.0


Arithmetic = Literal["float32", "tf32", "float16", "bfloat16"]


class Precision(Strict):
    """Arithmetic of the two halves of a step; recorded with every number.

    ``float16`` and ``bfloat16`` round the operands of the products; master weights, gradients of the weights, softmax
    statistics and the loss stay float32. float16 keeps as many bits as TF32 and less range, hence ``loss_scale``.
    """

    recurrence: Arithmetic = "float32"
    head: Arithmetic = "float32"
    evaluation: Literal["float32", "tf32"] | None = Field(
        None, description="arithmetic of every evaluation; when absent, TF32 if a half trains in TF32, else float32"
    )
    loss_scale: PositiveFloat = Field(
        1024.0, description="factor on the loss before a float16 backward pass, divided out of the gradients"
    )


class Budget(Strict):
    """When training ends: whichever comes first."""

    epochs: PositiveInt = 1
    steps: PositiveInt | None = None


class Evaluation(Strict):
    """How perplexity is taken.

    ``official`` adds the MoS authors' variant next to the standard one: batches cut as in their code, log(p + 1e-8),
    and a sum over rows - 1 divided by rows.
    """

    every_epochs: PositiveInt = 1
    valid_batch: PositiveInt = 10
    test_batch: PositiveInt = 1
    bptt: PositiveInt | None = Field(None, description="segment length; the recipe's bptt when absent")
    track_every_epochs: PositiveInt = Field(1, description="how often further running averages are scored")
    variants: list[Literal["official"]] = []


class Recipe(Strict):
    """Everything about optimisation that a task file can say."""

    batch_size: PositiveInt = 20
    micro_batch: PositiveInt | None = Field(None, description="accumulate gradients over batches of this size")
    bptt: PositiveInt = 70
    random_length: RandomLength | None = None
    optimizer: Annotated[Sgd | AdamW, Field(discriminator="name")] = Sgd()
    pointwise_lr: PositiveFloat | None = Field(None, description="learning rate of a pointwise function's parameters")
    averaging: Annotated[NonMonotone | FromEpoch, Field(discriminator="trigger")] | None = None
    track_averages: list[PositiveInt | Literal["non-monotone"]] = Field(
        [],
        description="further running averages kept beside, from these epochs on or from the non-monotone trigger; "
        "each is scored and recorded, none changes the run",
    )
    schedule: Schedule = Schedule()
    clip: PositiveFloat | None = Field(None, description="global gradient-norm bound")
    activation_regularization: NonNegativeFloat = 0.0
    temporal_regularization: NonNegativeFloat = 0.0
    precision: Precision = Precision()
    budget: Budget = Budget()
    evaluation: Evaluation = Evaluation()
    kernel: Literal["auto", "triton", "chunked", "reference"] = Field(
        "auto",
        description="how the head's loss is computed: in one pass over chunks (triton on a GPU, chunked anywhere), or "
        "with every logit at once (reference)",
    )
    deterministic: bool = False

    @model_validator(mode="after")
    def _micro_batch_fits(self) -> Recipe:
        if self.micro_batch is not None and self.batch_size % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch} does not divide batch_size {self.batch_size}")
        return self

    def resolved(self) -> dict[str, Any]:
        """Plain JSON with every default written in, save those of options added later.

        An option that did not exist yet leaves a recipe that does not use it as it was, and so its run key.
        """
        resolved = self.model_dump(mode="json")
        for part, model, name in _ADDED_LATER:
            holder = resolved[part] if part else resolved
            if holder[name] == model.model_fields[name].default:
                del holder[name]
        return resolved


_ADDED_LATER: tuple[tuple[str | None, type[Strict], str], ...] = (
    ("precision", Precision, "evaluation"),
    ("precision", Precision, "loss_scale"),
    (None, Recipe, "track_averages"),
    ("evaluation", Evaluation, "track_every_epochs"),
)
