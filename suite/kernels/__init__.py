"""The output layer as one operation: mixtures of softmaxes of pointwise-transformed logits."""
