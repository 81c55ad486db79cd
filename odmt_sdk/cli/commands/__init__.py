"""The commands; a file holds one command, or a few that belong together.

For each command there is a function that adds its options to a parser. It also sets two defaults:

- `write(arguments, program)` writes the program that the command runs, and
- `answer(arguments, result)` says what to print about the value of `result` in that program.
"""
