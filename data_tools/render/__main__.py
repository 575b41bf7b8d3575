"""`python -m data_tools.render …`"""

from data_tools.render.command import main
from data_tools.shared.command import run_command

if __name__ == "__main__":
    run_command(main)
