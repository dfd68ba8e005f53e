"""Time an epoch of this notebook's training against other libraries.

    python tests/benchmark.py [--jax]

The contestants are those of the notebook's section on speed, PyTorch through
torch.compile where a C++ compiler is found, and JAX, if it is asked for and
installed, with each epoch compiled into a single scan.
"""

import argparse
import shutil

import numpy as np
import torch

import definitions
import helpers


def compiled(nb, data, num_epochs, batch_size):
    """Return PyTorch's contestant with a compiled network, if there is one."""
    if not (shutil.which("g++") or shutil.which("clang++")):
        return {}
    network = nb.to_torch(nb.MLP(nb.SIZES, "relu", 0))
    fast = torch.compile(network)
    fast.__class__.__getitem__ = lambda _, key: network[key]
    sgd = torch.optim.SGD(network.parameters(), lr=0.01, fused=True)
    return {"PyTorch, compiled": lambda: nb.train_torch(
        fast, sgd, data, num_epochs, batch_size, 0, None)}


def jax_scan(nb, data, num_epochs, batch_size):
    """Return JAX's contestant; whole minibatches only, data in place."""
    import jax
    import jax.numpy as jnp

    model, count = nb.MLP(nb.SIZES, "relu", 0), len(data.X_train) // batch_size
    X, Y = map(jnp.asarray, (data.X_train, nb.one_hot(data.y_train)))

    def loss(parameters, X, Y):
        *hidden, (W, b) = parameters
        for V, c in hidden:
            X = jax.nn.relu(X @ V + c)
        return -(Y * jax.nn.log_softmax(X @ W + b)).sum() / len(Y)

    def step(parameters, batch):
        value, gradients = jax.value_and_grad(loss)(parameters, X[batch],
                                                    Y[batch])
        return jax.tree.map(lambda p, g: p - 0.01 * g, parameters,
                            gradients), value

    @jax.jit
    def epoch(parameters, order):
        return jax.lax.scan(step, parameters, order)

    def run():
        rng = np.random.default_rng(0)
        parameters = [*zip(model.weights, model.biases)]
        for _ in range(num_epochs):
            order = rng.permutation(len(X))[:count * batch_size]
            parameters, losses = epoch(parameters,
                                       order.reshape(count, batch_size))
        losses.block_until_ready()

    return {"JAX, an epoch a scan": run}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--jax", action="store_true", help="time JAX, too")
    options = parser.parse_args()
    nb = definitions.load_definitions()
    data = helpers.load_mnist(definitions.ROOT / "data")
    print(helpers.table_markdown(helpers.describe_machine("cpu"), 1,
                                 "This machine.", 2), "\n")

    def more(*settings):
        return compiled(nb, *settings) | (jax_scan(nb, *settings)
                                          if options.jax else {})

    def show(number, num_images, batch_size, cores):
        times = nb.time_epochs(data.subset(num_images, 1), 5,
                               batch_size=batch_size, more=more)
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
        for number, batch_size in enumerate((16, 64, 256), start=3):
            show(number, 1_024, batch_size, "one core")


if __name__ == "__main__":
    main()
