"""Runs inside Blender, or a Python with `bpy`: takes commands, draws, answers.

Nothing but bpy and numpy may be imported here and in the files beside this one: this Python is not ours.
data_tools.engines.blender_process starts it, writes one JSON command a line to its input, and reads one
answer a line that starts with MARK.
"""

import json
import os
import queue
import shutil
import sys
import threading
from pathlib import Path

import bpy
import numpy as np

# Blender runs a script without its folder on the path. Ours goes last, to hide nothing of Blender's.
sys.path.append(str(Path(__file__).parent))

from studio import Studio, read_environment, take_gpu

MARK = "@lgm "


def main(folder: str, device: str) -> None:
    """Answer requests from stdin until it is closed."""
    answers = _own_output()
    commands: queue.Queue = queue.Queue()
    threading.Thread(target=_read_commands, args=(commands, folder), daemon=True).start()
    studio = None

    def answer(content: dict) -> None:
        answers.write(MARK + json.dumps(content) + "\n")
        answers.flush()

    try:
        if device == "gpu":
            take_gpu()
        answer({"ready": bpy.app.version_string})
    except RuntimeError as error:
        answer({"error": str(error)})
    while True:
        command = commands.get()
        try:
            if command["do"] == "scene":
                studio = Studio(command, device == "gpu")
            elif command["do"] == "environment":
                np.save(command["file"], read_environment(command["image"]))
            else:
                np.save(command["file"], studio.draw(np.array(command["c2w"]).reshape(4, 4), command["file"]))
            answer({"done": command["do"]})
        except Exception as error:  # the object's fault, told to the program that asked
            answer({"error": f"{type(error).__name__}: {error}"})


def _own_output():
    """Standard output for answers alone; what Blender prints goes to standard error."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return output


def _read_commands(commands: queue.Queue, folder: str) -> None:
    """End with the program that started us, in the middle of an image too: it may have been killed."""
    for line in sys.stdin:
        commands.put(json.loads(line))
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    # Blender passes its own arguments on; ours stand behind `--`.
    main(*sys.argv[sys.argv.index("--") + 1 :])
