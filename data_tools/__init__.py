"""Meshes -> renders -> verified shards. `python -m data_tools.<command> --help` says how."""
