"""Leaderboards from records and published numbers. Imports neither torch nor MLflow."""
