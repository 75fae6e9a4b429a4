"""Encoders, output heads and the language model that joins them."""
