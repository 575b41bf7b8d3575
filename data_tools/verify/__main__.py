"""`python -m data_tools.verify …`"""

from data_tools.shared.command import run_command
from data_tools.verify.command import main

if __name__ == "__main__":
    run_command(main)
