"""A night that is killed with -9 at random moments and started again, against one that nothing disturbed: the trials
must be the same, none twice. The device is modelled, so that a study repeats bit for bit.

python -m benchmarks.sweep.kills [KILLS] [TRIALS]"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from autocompress.records.front import complete
from autocompress.search.storage import study_records
from benchmarks import goals as out

FILE = """schema: 1
name: kills
tasks: [digits]
devices: [rpi4]
spaces: [quick]
budgets: [{{trials: {trials}}}]
"""


def night(file: Path, runs: Path) -> list[str]:
    """The command of a night."""
    return [sys.executable, "-m", "autocompress.cli", "sweep", str(file), "--runs", str(runs)]


def digests(runs: Path) -> Counter[str]:
    """The configurations of the complete trials of the only study below `runs`."""
    (folder,) = (path.parent for path in runs.glob("*/study.db"))
    record = study_records.read_record(study_records.load_study(runs, folder.name, None))
    return Counter(evaluation.configuration.digest for _, evaluation in complete(record))


def killed_night(file: Path, runs: Path, whole_s: float, kills: int, rng: random.Random) -> int:
    """Start the night and kill it after a random part of what it takes, `kills` times; then let it end. How many kills
    came before its end."""
    done = 0
    for _ in range(kills):
        process = subprocess.Popen(
            night(file, runs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            process.wait(rng.uniform(0.05, 0.6) * whole_s)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)  # the night alone: its cell must end by itself
            process.wait()
            done += 1
        else:
            return done
    subprocess.run(night(file, runs), check=True, stdout=subprocess.DEVNULL)
    return done


def main(kills: int, trials: int) -> int:
    """Print what came out; 1 where a goal is missed."""
    out.print_run("A night killed with -9", ("optuna",))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kills.yaml"
        file.write_text(FILE.format(trials=trials))
        began_s = time.perf_counter()
        subprocess.run(night(file, Path(folder) / "whole"), check=True, stdout=subprocess.DEVNULL)
        whole_s = time.perf_counter() - began_s
        expected = digests(Path(folder) / "whole")
        table, same, twice, done, rng = [], 0, 0, 0, random.Random(0)
        while done < kills:
            runs = Path(folder) / f"killed{done}"
            some = killed_night(file, runs, whole_s, min(5, kills - done), rng)
            found, done = digests(runs), done + some
            nights = len(list(runs.glob("sweeps/kills/night-*.json")))
            same += some if set(found) == set(expected) else 0
            twice += sum(count - 1 for count in found.values())
            table.append([str(some), str(len(found)), str(len(set(found) & set(expected))), str(nights)])
    out.print_table(f"{trials} trials, {whole_s:.0f} s", ("kills", "trials", "as undisturbed", "nights"), table)
    return out.judge(
        [
            out.Goal(wanted=f"after each of {kills} kills the same trials", got=str(same), met=same == done),
            out.Goal(wanted="no trial twice", got=str(twice), met=twice == 0),
        ]
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", type=int, nargs="?", default=20)
    parser.add_argument("trials", type=int, nargs="?", default=12)
    asked = parser.parse_args()
    sys.exit(main(asked.kills, asked.trials))
