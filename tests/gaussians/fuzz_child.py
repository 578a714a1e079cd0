"""Reads wrong files in a process of its own: `python fuzz_child.py FORMAT,... FOLDER FIRST COUNT`.

The process may take 200 MB more than it has once a right file of each format has been read, and 2 s of CPU time per
file. What is neither read nor refused in one line (`BadInput`) is printed, a JSON object a line, and last what came of
each format; format and number being read stand in FOLDER/number, for the parent to name where this process dies.
"""

import json
import os
import resource
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from gaussians.mutations import Mutator

from radfield.errors import BadInput
from radfield.gaussians.files import read_gaussians

MORE_BYTES, MOST_SECONDS = 200 << 20, 2.0


class Slow(BaseException):
    """Two seconds have passed."""


def _slow(*_):
    raise Slow


def main(names, folder, first, count):
    """Reads the files of `count` numbers from `first` on, of each of the formats `names`."""
    warnings.simplefilter("ignore")
    mutators = {}
    for name in names:  # all is imported that readers need, and each allocator has its first memory
        (folder / name).mkdir()
        mutators[name] = Mutator(name, folder / name)
        read_gaussians(mutators[name].right())
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGESIZE") + MORE_BYTES,) * 2)
    signal.signal(signal.SIGPROF, _slow)
    with open(folder / "number", "w+b", buffering=0) as note:
        for name, mutator in mutators.items():
            counts = {"format": name, "read": 0, "refused": 0, "slowest": 0.0}
            for number in range(first, first + count):
                os.pwrite(note.fileno(), f"{name:>16}{number:10}".encode(), 0)
                outcome, seconds, found = outcome_of(mutator.write(number))
                counts[outcome] = counts.get(outcome, 0) + 1
                counts["slowest"] = max(counts["slowest"], seconds)
                if found is not None:
                    print(json.dumps({"format": name, "number": number, "found": found[:900]}), flush=True)
            print(json.dumps(counts), flush=True)


def outcome_of(path):
    """("read", "refused" or "failed", seconds of CPU time, None or what is wrong)."""
    began, found = time.process_time(), None
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        scene = read_gaussians(path)
        outcome = "read"
        if bool(scene.unsound().any()):
            found = "a Gaussian that is never drawn"
    except BadInput as error:
        outcome = "refused"
        if "\n" in str(error) or len(str(error)) > 1000:
            found = f"no line: {error}"
    except (Exception, Slow) as error:
        outcome, found = "failed", f"{type(error).__name__}: {error}; {traceback.format_exc()[-500:]}"
    signal.setitimer(signal.ITIMER_PROF, 0)
    seconds = time.process_time() - began
    if found is None and seconds > MOST_SECONDS:
        found = f"took {seconds:.1f} s"
    return outcome, seconds, found


if __name__ == "__main__":
    main(sys.argv[1].split(","), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
