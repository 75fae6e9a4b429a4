"""Text and synthetic sources to arrays of token ids and distributions."""
