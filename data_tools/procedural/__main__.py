"""`python -m data_tools.procedural …`"""

from data_tools.procedural.command import main
from data_tools.shared.command import run_command

if __name__ == "__main__":
    run_command(main)
