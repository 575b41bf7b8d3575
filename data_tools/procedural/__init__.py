"""Procedural objects as mesh files."""
