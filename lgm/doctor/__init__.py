"""`python -m lgm.doctor`: what works on this machine, how fast, and what to do about the rest.

It must run where nothing else does. So nothing of the project or of torch is imported before a check
needs it, and checks run in a child process that may die.
"""
