"""The suite's own components: names and where they live. Plain text, so that listing them imports nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

Kind = Literal["dataset", "encoder", "head", "pointwise", "stage"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# kind -> name -> "module:attribute"
BUILTIN: Mapping[str, Mapping[str, str]] = {
    "dataset": {
        "ptb": "suite.data.corpora:PennTreebank",
        "wikitext-2": "suite.data.corpora:WikiText2",
        "lm1b": "suite.data.lm1b:OneBillionWord",
        "lm1b-sample": "suite.data.lm1b:OneBillionWordSample",
        "text8": "suite.data.text8:Text8",
        "text8-sample": "suite.data.text8:Text8Sample",
        "switchboard": "suite.data.switchboard:Switchboard",
        "hidden-markov": "suite.data.synthetic:HiddenMarkov",
        "categorical": "suite.data.synthetic:Categorical",
    },
    "encoder": {
        "awd-lstm": "suite.models.encoders.lstm:AwdLstm",
        "lstm": "suite.models.encoders.lstm:Lstm",
        "transformer": "suite.models.encoders.transformer:Transformer",
        "table": "suite.models.encoders.table:Table",
    },
    "head": {
        "softmax": "suite.models.heads.head:Softmax",
        "mos": "suite.models.heads.head:MixtureOfSoftmaxes",
        "moc": "suite.models.heads.head:MixtureOfContexts",
    },
    "pointwise": {
        "identity": "suite.models.heads.pointwise:Identity",
        "sigsoftmax": "suite.models.heads.pointwise:Sigsoftmax",
        "gss": "suite.models.heads.pointwise:GeneralizedSigsoftmax",
        "relu": "suite.models.heads.saturating:Relu",
        "sigmoid": "suite.models.heads.saturating:Sigmoid",
        "plif": "suite.models.heads.learnable:Plif",
        "monotonic-network": "suite.models.heads.learnable:MonotonicNetwork",
    },
    "stage": {
        "train": "suite.training.stage:Train",
        "finetune": "suite.training.finetune:Finetune",
        "dynamic-evaluation": "suite.evaluation.dynamic:DynamicEvaluation",
        "cache": "suite.evaluation.cache:Cache",
        "rank": "suite.evaluation.rank:Rank",
        "divergence": "suite.evaluation.divergence:Divergence",
    },
}

# Options that came once there were records: at its default such an option is left out of a spec, and so of run keys.
ADDED_LATER: Mapping[tuple[str, str], frozenset[str]] = {
    ("stage", "rank"): frozenset({"splits", "press_float32", "eps_trap"}),
}
