"""`python -m data_tools.gso …`"""

from data_tools.gso.command import main
from data_tools.shared.command import run_command

if __name__ == "__main__":
    run_command(main)
