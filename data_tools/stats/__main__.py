"""`python -m data_tools.stats …`"""

from data_tools.shared.command import run_command
from data_tools.stats.command import main

if __name__ == "__main__":
    run_command(main)
