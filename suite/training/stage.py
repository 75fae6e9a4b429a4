"""The train stage: epochs of training with evaluation in between, then the best weights scored on valid and test."""

from __future__ import annotations

from typing import Any

from suite.evaluation.functions import keep_function
from suite.models.weights import load_weights
from suite.stages import Measurements, RunContext
from suite.training.loop import Trainer


class Train:
    """Train to the end of the budget, keep the weights that were best on validation, score them."""

    name = "train"
    trains = True

    def run(self, context: RunContext, state: dict[str, Any] | None) -> Measurements:
        """See :class:`suite.stages.Stage`."""
        with context.clock("setup"):
            trainer = Trainer(context)
            if state is not None:
                trainer.load_state_dict(state)
        trainer.fit()
        with context.clock("evaluate"):
            tracked = trainer.validation.tracked()
            load_weights(context.model, context.weights_path, context.device)
            keep_function(context, self.name)
            scores: Measurements = {split: s | tracked[split] for split, s in trainer.validation.final().items()}
        context.extras |= trainer.cost_figures()
        return scores
