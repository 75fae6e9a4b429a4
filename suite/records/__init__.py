"""Results: what a run leaves, where it is kept, what the papers published, and the mirror in MLflow."""
