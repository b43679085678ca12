"""This process: its memory, its messages, its name, and its input pipelines."""
