"""Run the notebook again in full and compare it with the committed one.

    python tests/grade.py [EXECUTED.ipynb]

Executes PA1_RollNumber.ipynb into run.ipynb or, given a notebook that is
executed already, only compares. Prints every headline number of both with
the tolerance and a verdict; exits with 1 if any of them differ.
"""

import argparse
import math
import sys

import papermill

import checks
from definitions import NOTEBOOK, ROOT

RUN = ROOT / "run.ipynb"

# Largest differences allowed: of accuracies in points, of losses as a share.
# On one machine all numbers are identical. Between machines BLAS rounds
# differently and training amplifies that, until two runs differ like two
# seeds: where the table gives a spread over seeds, three standard errors of
# the difference of two means are allowed at least. The sigmoid still climbs
# steeply when it stops, Adam at the prescribed rate is unstable, and the
# recognizer's loss (0.03) is small. A rate or alpha chosen differently is a
# near tie on validation, but alpha scales the losses: they aren't compared.
TOLERANCE = {
    "sigmoid": (1.5, 0.1),
    "tanh": (0.3, 0.1),
    "relu": (0.3, 0.1),
    "sgd_tuned": (0.3, 0.1),
    "adam": (1.5, 0.5),
    "adam_tuned": (0.3, 0.1),
    "l2": (0.3, 0.1),
    "recognizer": (0.15, 0.2),
    "other choice": (1.5, None),
}
LAST_DIGIT = 0.002      # losses are printed to 0.001; small ones need this
CHOSEN = ("learning rate", "α")
FIXED = ("activation", "optimizer", "seeds")    # if they differ, nothing does


def compare(committed, executed):
    """Yield (line, agrees) for each comparison of two notebooks."""
    (caption, rows), (new_caption, new_rows) = (
        checks.headline(notebook) for notebook in (committed, executed))
    if not rows or not new_rows:
        yield "One of the notebooks shows no headline table: DIFFERS", False
        return
    if caption != new_caption:
        yield (f"The runs differ in length, so the numbers can't agree:\n"
               f"  {caption}\n  {new_caption}\nDIFFERS", False)
    old, new = ({row["model"]: row for row in part}
                for part in (rows, new_rows))
    for name in old | new:
        if name in old and name in new:
            yield from compare_rows(old[name], new[name])
        else:
            yield f"{name}: only in one of the runs: DIFFERS", False


def compare_rows(old, new):
    """Yield (line, agrees) for what is compared of two rows."""
    tolerance = old["model"]
    name = (f"{tolerance}, {old['activation']}, {old['optimizer']} "
            f"{old['learning rate']}")
    for key in FIXED + CHOSEN:
        if old[key] != new[key]:
            free = key in CHOSEN
            yield (f"{name}: {key} {old[key]}, now {new[key]}: " + (
                "another choice on validation, so accuracies are compared "
                "more widely and losses not at all" if free else
                "the numbers can't be compared: DIFFERS"), free)
            tolerance = "other choice"
    points, share = TOLERANCE[tolerance]
    for key in ("train accuracy", "test accuracy", "train loss", "test loss"):
        is_loss = key.endswith("loss")
        if is_loss and share is None:
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
        print(f"Executing {NOTEBOOK.name} into {RUN.name}; this takes as long "
              "as its last line says.", flush=True)
        papermill.execute_notebook(str(NOTEBOOK), str(RUN), cwd=str(ROOT),
                                   stdout_file=sys.stdout)
    executed = checks.read(options.executed or RUN)
    print(f"{'model':36} {'quantity':13} committed      new  tolerance")
    compared = list(compare(checks.read(NOTEBOOK), executed))
    print(*(line for line, _ in compared), sep="\n")
    agree = all(agrees for _, agrees in compared)
    print("All headline numbers agree." if agree
          else "Some headline numbers DIFFER.")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
