"""`python -m glimpsezoo`."""

from glimpsezoo.commands import program

if __name__ == "__main__":
    program()
