"""Time an epoch of this notebook's training against other libraries.

    python tests/benchmark.py

The contestants are those of the notebook's section on speed.
"""

import numpy as np

import definitions
import helpers


def main():
    nb = definitions.load_definitions()
    data = helpers.load_mnist(definitions.ROOT / "data")
    print(helpers.table_markdown(helpers.describe_machine("cpu"), 1,
                                 "This machine.", 2), "\n")

    def show(number, num_images, batch_size, cores):
        times = nb.time_epochs(data.subset(num_images, 1), 5, batch_size)
        median = {name: np.median(times[name]) for name in times}
        print(helpers.table_markdown(
            [{"one epoch by": name, "seconds": f"{seconds:.2f}"}
             | {f"times {other}": f"{seconds / median[other]:.2f}"
                for other in ("products", "NumPy")}
             for name, seconds in median.items()], number,
            f"ReLU, batch {batch_size}, {cores}: medians of 5 on "
            f"{num_images:,} images, scaled to 60,000."), "\n")

    show(2, 60_000, 64, "all cores")
    with helpers.single_thread():
        for number, batch_size in enumerate((16, 64, 256, 1024), start=3):
            show(number, 6_144, batch_size, "one core")


if __name__ == "__main__":
    main()
