"""Time an epoch of this notebook's training against other libraries.

    python tests/benchmark.py [--images 60000] [--repeats 5]

The contestants are those of the notebook's section on speed.
"""

import argparse

import numpy as np

import definitions
import helpers


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=60_000,
                        help="training images of an epoch (60000)")
    parser.add_argument("--repeats", type=int, default=5,
                        help="rounds that count, after one to warm up (5)")
    options = parser.parse_args()
    nb = definitions.load_definitions()
    data = helpers.load_mnist(definitions.ROOT / "data")
    print(helpers.table_markdown(helpers.describe_machine("cpu"), 1,
                                 "This machine.", 2), "\n")

    def show(number, num_images, batch_size, cores):
        times = nb.time_epochs(data.subset(num_images, 1), options.repeats,
                               batch_size)
        median = {name: np.median(times[name]) for name in times}
        print(helpers.table_markdown(
            [{"one epoch by": name, "seconds": f"{seconds:.2f}"}
             | {f"times {other}": f"{seconds / median[other]:.2f}"
                for other in ("products", "NumPy")}
             for name, seconds in median.items()], number,
            f"ReLU, batch {batch_size}, {cores}: medians of {options.repeats} "
            f"on {num_images:,} images, scaled to 60,000."), "\n")

    show(2, options.images, 64, "all cores")
    with helpers.single_thread():
        for number, batch_size in enumerate((16, 64, 256, 1024), start=3):
            show(number, min(options.images, 6_144), batch_size, "one core")


if __name__ == "__main__":
    main()
