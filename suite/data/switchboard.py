"""Switchboard dialogue (Yang et al. 2018, table 4): declared, so that its row can say why it is empty."""

from __future__ import annotations

from suite.data.base import DataAccess, TextData
from suite.errors import DataError
from suite.spec.types import PositiveInt


class Switchboard:
    """Switchboard dialogue for sequence-to-sequence models; the data is not available and the models are not built.

    ``vocabulary`` is the size of the dictionary, which the paper does not state.
    """

    contexts: int | None = None

    def __init__(self, *, vocabulary: PositiveInt = 10_000) -> None:
        self.vocabulary_size = vocabulary

    def load(self, access: DataAccess) -> TextData:
        """Never returns.

        Raises:
            DataError: always; says what a user would have to supply.
        """
        raise unavailable()


def unavailable() -> DataError:
    """What is missing for table 4 of Yang et al. 2018."""
    return DataError(
        "data not available: Switchboard is licensed by the Linguistic Data Consortium (LDC97S62) and cannot be "
        "downloaded. Table 4 of Yang et al. 2018 needs the corpus from there, the dialogue preprocessing of "
        "github.com/snakeztc/NeuralDialog-CVAE, and its train, valid and test dialogues as "
        "DATA_DIR/switchboard/{train,valid,test}.jsonl, one dialogue a line; it also needs a sequence-to-sequence "
        "model and beam search, which this suite does not have, so supplying the data alone does not fill the row"
    )
