"""This process: its memory, its messages, its name, its cores, and its input pipelines."""
