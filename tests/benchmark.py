"""Time an epoch of this notebook's training against other libraries.

    python tests/benchmark.py [--images 60000] [--repeats 5]

The contestants and the table are those of the notebook's section on speed.
"""

import argparse

import numpy as np
import torch

import definitions
import helpers

FEW = 320       # images for the loop that sees one at a time


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=60_000,
                        help="training images of an epoch (60000)")
    parser.add_argument("--repeats", type=int, default=5,
                        help="rounds that count, after one to warm up (5)")
    options = parser.parse_args()
    if not 1 <= options.images <= 60_000 or options.repeats < 1:
        parser.error("give 1 to 60000 images and at least 1 repeat")
    nb = definitions.load_definitions()
    data = helpers.load_mnist(definitions.ROOT / "data")
    print(helpers.table_markdown(
        helpers.describe_machine(torch.device("cpu")), 1, "This machine.", 2))
    print(speed_table(nb, data, options.images, options.repeats))
    print(scaling_table(nb, data, min(options.images, 6_144),
                        options.repeats))


def speed_table(nb, data, num_images, repeats):
    """Return the notebook's table of contestants, as Markdown."""
    bench = data.subset(num_images, 1)
    few = data.subset(min(FEW, num_images), 1)
    slowest = "NumPy, image by image"
    times = helpers.interleave(nb.contestants(bench) | {
        slowest: lambda: nb.looped_epoch(nb.MLP(nb.SIZES, "relu", 0), few, 64,
                                         0.01)}, repeats)
    times[slowest] = [t * num_images / len(few.X_train)
                      for t in times[slowest]]
    return "\n" + helpers.table_markdown(
        nb.benchmark_rows(times, num_images), 2,
        f"One epoch of the ReLU network, batch 64: medians of {repeats} on "
        f"{num_images:,} images, scaled to 60,000.")


def scaling_table(nb, data, num_images, repeats):
    """Return µs per image, on one core, by batch size and width."""
    part = data.subset(num_images, 1)
    trials = {f"batch {size}": nb.contestants(part, size)
              for size in (16, 64, 256, 1024)}
    for factor in (0.5, 1, 2):
        hidden = [int(factor * n) for n in nb.SIZES[1:-1]]
        trials["widths " + "-".join(map(str, hidden))] = nb.contestants(
            part, sizes=(nb.SIZES[0], *hidden, nb.SIZES[-1]))
    names = list(nb.contestants(part))[:3]
    with helpers.single_thread():
        times = helpers.interleave({(trial, name): functions[name]
                                    for trial, functions in trials.items()
                                    for name in names}, repeats)
    rows = [{"trained with": trial} | {
        name: f"{1e6 * np.median(times[trial, name]) / num_images:.1f}"
        for name in names} for trial in trials]
    return "\n" + helpers.table_markdown(
        rows, 3, f"Microseconds per image on one core, medians of {repeats} "
        f"on {num_images:,} images; batch 64 and widths 500-250-100 unless "
        "varied.")


if __name__ == "__main__":
    main()
