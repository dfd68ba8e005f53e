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

# Largest differences allowed, of accuracies in points and of losses as a
# share. On one machine all numbers are identical. Between machines, BLAS
# kernels round differently and training amplifies that: after some epochs two
# runs differ like two seeds. So where the table gives a spread over seeds, at
# least three standard errors of the difference of two means are allowed. The
# sigmoid is still climbing steeply when it stops, so a little ahead or behind
# is much; Adam at the prescribed rate is unstable. The recognizer's accuracy
# has converged, but its loss is so small (0.03) that two seeds differ by a
# third of it. A rate or alpha chosen differently is a near tie on validation:
# accuracies get "other choice", and the losses, which alpha scales, can't be
# compared.
TOLERANCE = {
    "sigmoid": (1.5, 0.1),
    "SGD": (0.3, 0.1),
    "Adam, prescribed": (1.5, 0.5),
    "Adam": (0.3, 0.1),
    "recognizer": (0.15, 0.2),
    "other choice": (1.5, None),
}
LAST_DIGIT = 0.002      # losses are printed to 0.001; small ones need this
CHOSEN = ("learning rate", "α")
FIXED = ("activation", "seeds")     # if these differ, nothing compares


def roles(rows):
    """Return rows by model, optimizer and place among their equals."""
    found = {}
    for row in rows:
        place = 1
        while (row["model"], row["optimizer"], place) in found:
            place += 1
        found[row["model"], row["optimizer"], place] = row
    return found


def kind(role, row):
    """Return the entry of TOLERANCE for a row of the headline table."""
    model, optimizer, place = role
    if "Section" in model:
        return "recognizer"
    if (model, optimizer, place) == ("PyTorch", "Adam", 1):
        return "Adam, prescribed"
    if optimizer == "SGD" and row["activation"] == "sigmoid":
        return "sigmoid"
    return optimizer


def compare(committed, executed):
    """Yield (line, agrees) for each comparison of two notebooks."""
    found = []
    for which, notebook in (("committed", committed), ("new", executed)):
        try:
            found.append(checks.headline(notebook))
        except ValueError as error:
            yield f"The {which} notebook: {error}: DIFFERS", False
            return
    (caption, rows), (new_caption, new_rows) = found
    if caption != new_caption:
        yield (f"The runs differ in length, so the numbers can't agree:\n"
               f"  {caption}\n  {new_caption}\nDIFFERS", False)
    old, new = roles(rows), roles(new_rows)
    for role in old | new:
        if role not in old or role not in new:
            lacks = "committed" if role not in old else "new"
            yield (f"{role[0]}, {role[1]}, row {role[2]} of these: not in "
                   f"the {lacks} run: DIFFERS", False)
        else:
            yield from compare_rows(kind(role, old[role]), old[role],
                                    new[role])


def compare_rows(tolerance, old, new):
    """Yield (line, agrees) for what is compared of two rows."""
    name = (f"{old['model']}, {old['activation']}, {old['optimizer']} "
            f"{old['learning rate']}")
    for key in FIXED:
        if old[key] != new[key]:
            yield (f"{name}: {key} {old[key]}, now {new[key]}, so the numbers "
                   "can't be compared exactly: DIFFERS", False)
            tolerance = "other choice"
    for key in CHOSEN:
        if old[key] != new[key]:
            yield (f"{name}: {key} {old[key]}, now {new[key]}: another choice "
                   "on validation, so accuracies are compared more widely and "
                   "losses not at all", True)
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


def execute():
    """Execute the notebook in full, with its progress on the terminal."""
    print(f"Executing {NOTEBOOK.name} into {RUN.name}; this takes as long as "
          "its last table says.", flush=True)
    papermill.execute_notebook(str(NOTEBOOK), str(RUN), cwd=str(ROOT),
                               stdout_file=sys.stdout)
    return RUN


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("executed", nargs="?",
                        help="an executed notebook; none: execute it now")
    options = parser.parse_args()
    executed = checks.read(options.executed or execute())
    agree = True
    print(f"{'model':36} {'quantity':13} committed      new  tolerance")
    for line, agrees in compare(checks.read(NOTEBOOK), executed):
        print(line)
        agree &= agrees
    print("All headline numbers agree." if agree
          else "Some headline numbers DIFFER.")
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
