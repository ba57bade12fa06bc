"""One file a command: ``run(args, say)`` does the work and says what it found, a line at a time. Loaded when asked
for.
"""
