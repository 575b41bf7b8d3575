"""Callbacks of an evaluation; those that write one object's files are `ObjectHook`s."""
