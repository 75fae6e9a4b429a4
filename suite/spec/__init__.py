"""What to run: task files in, frozen run specs out. Imports neither torch nor MLflow."""
