"""Lesson 1: is it a face, and does it smile? A Sequential model, one layer after the other.

The layers are those of the course's mood classifier: padding, 32 filters of 7x7, batch normalisation, ReLU, pooling,
and one dense layer with a sigmoid. They see one of three sets of images:

    python examples/mood.py                     real ones: 100 faces and 100 others, 25x25, grey (from scikit-image)
    python examples/mood.py --data drawn        750 drawn faces that smile or look sad, 64x64, in colour
    python examples/mood.py --data course       the course's photographs, if its files lie in datasets/

A quarter (of the photographs and drawings: a fifth) is held out to test.
"""

from __future__ import annotations

import argparse
import pathlib
import time

import numpy as np

from fastconv import course, nn, viz

CLASSES = {"faces": ["no face", "face"], "drawn": ["sad", "smiles"], "course": ["sad", "smiles"]}


def load(data, folder="datasets", seed=0, quick=False):
    """(x, y) to train and (x, y) to test; x is (m, height, width, channels) in 0 .. 1, y is a column of 0 and 1."""
    if data == "course":
        train_x, train_y, test_x, test_y, _ = course.load_happy_dataset(folder)
        train, test = (train_x, train_y), (test_x, test_y)
        return tuple((course.normalize(x), course.as_column(y)) for x, y in (train, test))
    if data == "drawn":
        images, labels = course.draw_faces(100 if quick else 750, seed=0)
        x, held_out = course.normalize(images), len(images) // 5
    else:
        from skimage.data import lfw_subset

        x = lfw_subset().astype(np.float32)[..., None]
        labels = np.repeat([1, 0], 100)  # the first hundred are faces
        held_out = len(x) // 4
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order], course.as_column(labels[order])
    return (x[held_out:], y[held_out:]), (x[:held_out], y[:held_out])


def build(shape):
    """The course's layers; for its 64x64x3 photographs they have 37,633 parameters."""
    return nn.Sequential(
        [
            nn.Input(shape),
            nn.ZeroPadding2D(3),
            nn.Conv2D(32, 7),
            nn.BatchNormalization(axis=3),
            nn.ReLU(),
            nn.MaxPooling2D(),
            nn.Flatten(),
            nn.Dense(1, activation="sigmoid"),
        ]
    )


def train(data="faces", seed=0, epochs=None, folder="datasets", quick=False, verbose=0):
    """(model, history, test, seconds) of one training; the seed also says which images are held out."""
    (x, y), test = load(data, folder, seed, quick)
    epochs = epochs or {"faces": 50, "drawn": 15, "course": 15}[data]
    nn.set_random_seed(seed)
    model = build(x.shape[1:])
    # small steps for few images: large ones follow their noise
    rate = 3e-4 if data == "faces" else 1e-3
    model.compile(nn.optimizers.Adam(rate), "binary_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    history = model.fit(x, y, batch_size=16, epochs=epochs, validation_data=test, verbose=verbose)
    return model, history, test, time.perf_counter() - start


def accuracy(model, test):
    x, y = test
    return float(((model.predict(x, verbose=0) > 0.5) == y).mean())


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=CLASSES, default="faces", help="which images (faces)")
    parser.add_argument("--folder", default="datasets", help="where the course's files lie (datasets)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings, each with its own seed (1)")
    parser.add_argument("--epochs", type=int, help="by default 50 for the few real faces, else 15")
    parser.add_argument("--output", type=pathlib.Path, help="folder for pictures")
    parser.add_argument("--quick", action="store_true", help="two epochs and few images, to see that it runs")
    given = parser.parse_args(arguments)
    reached, taken = [], []
    for seed in range(given.seeds):
        model, history, test, seconds = train(
            given.data, seed, 2 if given.quick else given.epochs, given.folder, given.quick,
            verbose="auto" if given.seeds == 1 else 0,
        )  # fmt: skip
        if seed == 0:
            model.summary()
        reached.append(accuracy(model, test))
        taken.append(seconds)
        print(f"seed {seed}: {reached[-1]:.3f} of {len(test[0])} held-out images right, trained in {seconds:.1f} s")
    if given.seeds > 1:
        print(f"mean {np.mean(reached):.3f}, median {np.median(taken):.1f} s")
    if given.output:
        x, y = test
        viz.confusion_matrix(
            y, model.predict(x, verbose=0), CLASSES[given.data], path=given.output / "mood-confusion.png"
        )
        viz.show_filters(model, path=given.output / "mood-filters.png")
        viz.show_feature_maps(model, x[0], layer=model.layers[3].name, path=given.output / "mood-feature-maps.png")
        viz.plot_history(history, path=given.output / "mood-history.png")
        viz.plot_model(model, given.output / "mood-model.svg")
    return float(np.mean(reached))


if __name__ == "__main__":
    main()
