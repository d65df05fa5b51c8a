"""Lesson 3: read handwritten digits, ten classes of 8x8 pixels, with four convolutions.

The digits are real: 1,797 of them come with scikit-learn, written by 43 people. The first 1,437 train, the last 360
test. They are not shuffled, so that most of the test's writers were never seen, which is harder than a random split.

    python examples/digits.py                   one training with light augmentation
    python examples/digits.py --plain           without augmentation, four times as fast
    python examples/digits.py --seeds 5         the mean over five seeds
"""

from __future__ import annotations

import argparse
import pathlib
import time

import numpy as np

from fastconv import nn, viz

TRAIN, BATCH = 1437, 32


def load():
    """((x, y) to train, (x, y) to test): x is (m, 8, 8, 1) in 0 .. 1, y are labels 0 .. 9."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = (digits.images[..., None] / 16).astype(np.float32), digits.target
    return (x[:TRAIN], y[:TRAIN]), (x[TRAIN:], y[TRAIN:])


def convolution(filters):
    return [nn.Conv2D(filters, 3, padding="same", use_bias=False), nn.BatchNormalization(momentum=0.9), nn.ReLU()]


def build(augmented):
    """Four 3x3 convolutions with batch normalisation, halved twice by pooling, and one dense layer."""
    # every digit a little turned, moved, resized and slanted, anew in each epoch; in training only
    light = [nn.RandomAffine(rotation=12, shift=0.1, scale=0.12, shear=10)] if augmented else []
    return nn.Sequential(
        [
            nn.Input((8, 8, 1)),
            *light,
            *convolution(32),
            *convolution(32),
            nn.MaxPooling2D(2),
            nn.Dropout(0.25),
            *convolution(64),
            *convolution(64),
            nn.MaxPooling2D(2),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Dense(10),
        ]
    )


def tell(epoch, logs):
    """Every fifth epoch, a line."""
    if epoch % 5 == 4:
        print(f"  epoch {epoch + 1:2}: loss {logs['loss']:.3f}, accuracy {logs['accuracy']:.3f}", flush=True)


def train(seed=0, augmented=True, epochs=None, told=False):
    """(model, history, seconds) of one training."""
    (x, y), _ = load()
    epochs = epochs or (40 if augmented else 15)
    nn.set_random_seed(seed)
    model = build(augmented)
    rate = nn.optimizers.schedules.CosineDecay(3e-3, epochs * -(-len(x) // BATCH))
    loss = nn.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(nn.optimizers.Adam(rate), loss, metrics=["accuracy"])
    callbacks = [nn.callbacks.LambdaCallback(on_epoch_end=tell)] if told else []
    start = time.perf_counter()
    history = model.fit(x, y, batch_size=BATCH, epochs=epochs, callbacks=callbacks, verbose=0)
    return model, history, time.perf_counter() - start


def accuracy(model):
    """Share of the test's digits that are read right."""
    _, (x, y) = load()
    return float((model.predict(x, verbose=0).argmax(axis=1) == y).mean())


def draw(model, history, folder):
    """Confusion matrix, learned filters, feature maps of one digit, curves and the graph; returns the paths."""
    _, (x, y) = load()
    names = ("confusion.png", "filters.png", "feature-maps.png", "history.png", "model.svg")
    confusion, filters, maps, curves, graph = paths = [folder / f"digits-{name}" for name in names]
    viz.confusion_matrix(y, model.predict(x, verbose=0), title="digits never seen", path=confusion)
    viz.show_filters(model, title="what the first layer learned", path=filters)
    seen = next(layer.name for layer in model.layers if isinstance(layer, nn.ReLU))
    viz.show_feature_maps(model, x[2], layer=seen, title="what it sees in one digit", path=maps)
    viz.plot_history(history, title="training", path=curves)
    viz.plot_model(model, graph)
    return paths


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plain", action="store_true", help="no augmentation")
    parser.add_argument("--seeds", type=int, default=1, help="trainings, each with its own seed (1)")
    parser.add_argument("--epochs", type=int, help="by default 40, or 15 with --plain")
    parser.add_argument("--output", type=pathlib.Path, help="folder for pictures")
    parser.add_argument("--quick", action="store_true", help="two epochs, to see that it runs")
    given = parser.parse_args(arguments)
    epochs = 2 if given.quick else given.epochs
    reached, taken = [], []
    for seed in range(given.seeds):
        model, history, seconds = train(seed, not given.plain, epochs, told=given.seeds == 1)
        reached.append(accuracy(model))
        taken.append(seconds)
        print(f"seed {seed}: {reached[-1]:.4f} of the last 360 digits right, trained in {seconds:.1f} s")
    if given.seeds > 1:
        print(f"mean {np.mean(reached):.4f}, median {np.median(taken):.1f} s")
    if given.output:
        print(*draw(model, history, given.output), sep="\n")
    return float(np.mean(reached))


if __name__ == "__main__":
    main()
