"""Stands for the process of a run, without PyTorch: LOCK NICE SUBCOMMAND [arguments].

It tells the folder of the run what it was given, trains for --seconds, and ends with --status. With --values it logs a
validation of each.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def main(lock: str, nice: str, *arguments: str) -> int:
    options = dict(one.removeprefix("--").partition("=")[::2] for one in arguments[1:])
    folder = Path(options["root"], options["experiment"], options["run"])
    about = {"arguments": arguments, "nice": nice, "threads": os.environ["OMP_NUM_THREADS"], "began": time.time()}
    about["group"] = os.getpgrp() == os.getpid()

    def stopped(*_: object) -> None:
        (folder / "stopped").touch()
        sys.exit(1)

    signal.signal(signal.SIGTERM, stopped)
    (folder / "began").write_text("")
    (folder / "config.yaml").write_text("{model: {class_path: a.A}, data: {class_path: b.B}}")
    for step, value in enumerate(filter(None, options.get("values", "").split("/"))):
        text = "step,val_accuracy\n" if step == 0 else ""
        with (folder / "metrics.csv").open("a" if step else "w") as file:
            file.write(f"{text}{10 * step + 9},{value}\n")
        time.sleep(0.3)
    time.sleep(float(options.get("seconds", 0)))
    (folder / "about.json").write_text(json.dumps(about | {"ended": time.time()}))
    if options.get("status", "0") == "0":
        (folder / "done").touch()
    return int(options.get("status", 0))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
