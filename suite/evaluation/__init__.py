"""Perplexity and the other scores of a trained model."""
