"""Run the notebook again in full and compare it with the committed one.

    python tests/grade.py [EXECUTED.ipynb]

Executes PA1_RollNumber.ipynb into run.ipynb or, given a notebook that is
executed already, only compares. Prints every headline number of both with
the tolerance and a verdict; exits with 1 if any of them differ.
"""

import argparse
import math
import re
import sys

import papermill

import checks
from definitions import NOTEBOOK, ROOT

# Largest differences allowed: of accuracies in points, of losses as a share.
# On one machine all numbers are identical. Between machines BLAS rounds
# differently and training amplifies that, until two runs differ like two
# seeds: where the table gives a spread over seeds, three standard errors of
# the difference of two means are allowed at least. The sigmoid still climbs
# steeply when it stops, Adam at the prescribed rate is unstable, and the
# recognizer's loss is small. A rate or alpha chosen differently is a
# near tie on validation.
TOLERANCE = {
    "sigmoid": (1.5, 0.1),
    "tanh": (0.3, 0.1),
    "relu": (0.3, 0.1),
    "sigmoid tuned": (1.5, 0.5),
    "tanh tuned": (0.3, 0.1),
    "relu tuned": (0.3, 0.1),
    "adam": (1.5, 0.5),
    "adam tuned": (0.3, 0.1),
    "l2": (1.5, 0.5),
    "l2 tuned": (0.3, 0.1),
    "recognizer": (0.15, 0.2),
    "committee": (0.15, None),
    "other choice": (1.5, None),
}
LAST_DIGIT = 0.002      # losses are printed to 0.001; small ones need this
SAME = ("model", "activation", "optimizer", "seeds")
CHOSEN = ("learning rate", "α")


def compare(committed, executed):
    """Yield (line, agrees) for each comparison of two notebooks."""
    (caption, old), (new_caption, new) = (
        checks.headline(notebook) for notebook in (committed, executed))
    what, new_what = ([" ".join(row[key] for key in SAME) for row in rows]
                      for rows in (old, new))
    # The numbers in the captions are lengths of runs, their wording is free.
    lengths, new_lengths = (re.findall(r"\d+", text.partition(" Trained")[0])
                            for text in (caption, new_caption))
    if not old or (lengths, what) != (new_lengths, new_what):
        yield ("The headline tables don't show the same models, seeds and "
               "lengths, so the numbers can't agree: DIFFERS\n"
               f"  {caption} {what}\n  {new_caption} {new_what}", False)
        return
    for rows in zip(old, new):
        yield from compare_rows(*rows)


def compare_rows(old, new):
    """Yield (line, agrees) for what is compared of two rows."""
    points, share = TOLERANCE[old["model"]]
    name = " ".join(old[key] for key in SAME[:3])
    for key in CHOSEN:
        if old[key] != new[key]:
            points, share = TOLERANCE["other choice"]
            yield (f"{name}: {key} {old[key]}, now {new[key]}: another choice "
                   "on validation, so accuracies are compared more widely and "
                   "losses not at all", True)
    for key in ("train accuracy", "test accuracy", "train loss", "test loss"):
        is_loss = key.endswith("loss")
        if (is_loss and share is None) or not old[key]:
            continue
        before, after = (float(row[key].split()[0]) for row in (old, new))
        limit = share * before + LAST_DIGIT if is_loss else points
        for spread in old[key].split(" ± ")[1:]:
            limit = max(limit, 3 * float(spread) * math.sqrt(
                2 / int(old["seeds"])))
        agrees = abs(after - before) <= limit + 1e-9
        digits = 3 if is_loss else 2
        yield (f"{name:36} {key:14} {before:8.{digits}f} {after:8.{digits}f}  "
               f"± {limit:.{digits}f}  {'ok' if agrees else 'DIFFERS'}",
               agrees)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("executed", nargs="?",
                        help="an executed notebook; none: execute it now")
    options = parser.parse_args()
    if not options.executed:
        print(f"Executing {NOTEBOOK.name} into run.ipynb; this takes as long "
              "as its last line says.", flush=True)
        papermill.execute_notebook(NOTEBOOK, ROOT / "run.ipynb", cwd=ROOT,
                                   stdout_file=sys.stdout)
    executed = checks.read(options.executed or ROOT / "run.ipynb")
    print(f"{'model':36} {'quantity':13} committed      new  tolerance")
    compared = list(compare(checks.read(NOTEBOOK), executed))
    print(*(line for line, _ in compared), sep="\n")
    agree = all(agrees for _, agrees in compared)
    print("All headline numbers agree." if agree
          else "Some headline numbers DIFFER.")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
