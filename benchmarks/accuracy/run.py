"""Run the comparison of methods on a dataset with one command.

    python benchmarks/accuracy/run.py instruments --data FOLDER --text-encoder DIR
    python benchmarks/accuracy/run.py mixtures --data FOLDER --cells outputs/accuracy
    python benchmarks/accuracy/run.py picture instruments --output docs/images/instruments.png

The first word is a data set of `presets.py`, "compare" for any other folder, "mixtures", or
"picture" for measured and published numbers.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[1])  # where this folder is a package

from accuracy import compare, mixtures, picture  # noqa: E402
from accuracy.presets import PRESETS  # noqa: E402


def main(words: list[str]) -> None:
    known = [*PRESETS, "compare", "mixtures", "picture"]
    if not words or words[0] not in known:
        sys.exit(f"{__doc__}\nSay first what to run: {', '.join(known)}")
    if words[0] == "mixtures":
        mixtures.main(words[1:])
    elif words[0] == "picture":
        picture.main(words[1:])
    else:
        compare.main(words)


if __name__ == "__main__":
    main(sys.argv[1:])
