"""Encoders: token ids to context vectors."""
