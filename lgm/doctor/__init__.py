"""`python -m lgm.doctor`: diagnosis of a machine: what works, how fast, and what to do about the rest.

It must run where nothing else does. So nothing of the project or of torch is imported before a check
needs it, and checks run in a child process that may die.
"""
