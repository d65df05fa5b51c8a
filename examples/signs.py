"""Lesson 2: which number does the hand show? A Functional model, in which every layer says where it takes from.

The layers are those of the course: twice a convolution, ReLU and pooling, then one dense layer with a softmax over the
six classes. They see one of two sets of 1,080 images to train and 120 to test, 64x64 in colour:

    python examples/signs.py                    drawn hands, of every skin, size, light and background
    python examples/signs.py --data course      the course's photographs, if its files lie in datasets/
    python examples/signs.py --model deeper     a larger network, for comparison
"""

from __future__ import annotations

import argparse
import pathlib
import time

import numpy as np

from fastconv import course, nn, viz

TRAIN, TEST = 1080, 120
RATE = {"course": 3e-3, "deeper": 1e-3}


def load(data="drawn", folder="datasets", quick=False):
    """(x, y) to train and (x, y) to test; x is (m, 64, 64, 3) in 0 .. 1, y is one-hot, (m, 6)."""
    if data == "course":
        train_x, train_y, test_x, test_y, _ = course.load_signs_dataset(folder)
    else:
        train, test = (60, 12) if quick else (TRAIN, TEST)
        images, labels = course.draw_hands(train + test, seed=0)
        train_x, train_y, test_x, test_y = images[:train], labels[:train], images[train:], labels[train:]
    return (
        (course.normalize(train_x), course.convert_to_one_hot(train_y, 6).T),
        (course.normalize(test_x), course.convert_to_one_hot(test_y, 6).T),
    )


def build(kind="course"):
    """The course's model, 1,310 parameters; or a deeper one with two ways of pooling, side by side."""
    image = nn.Input((64, 64, 3))
    if kind == "course":
        x = nn.Conv2D(8, 4, padding="same")(image)
        x = nn.ReLU()(x)
        x = nn.MaxPooling2D(8, strides=8, padding="same")(x)
        x = nn.Conv2D(16, 2, padding="same")(x)
        x = nn.ReLU()(x)
        x = nn.MaxPooling2D(4, strides=4, padding="same")(x)
        x = nn.Flatten()(x)
        return nn.Model(image, nn.Dense(6, activation="softmax")(x))
    x = image
    for filters in (16, 32, 64):
        x = nn.Conv2D(filters, 3, padding="same", use_bias=False)(x)
        x = nn.BatchNormalization(momentum=0.9)(x)
        x = nn.ReLU()(x)
        x = nn.MaxPooling2D(2)(x)
    x = nn.Concatenate()([nn.MaxPooling2D(2)(x), nn.AveragePooling2D(2)(x)])
    x = nn.Flatten()(x)
    x = nn.Dropout(0.4)(x)
    return nn.Model(image, nn.Dense(6, activation="softmax")(x))


def train(data="drawn", kind="course", seed=0, epochs=None, folder="datasets", quick=False, verbose=0):
    """(model, history, test, seconds) of one training."""
    (x, y), test = load(data, folder, quick)
    epochs = epochs or (100 if kind == "course" else 40)
    nn.set_random_seed(seed)
    model = build(kind)
    model.compile(nn.optimizers.Adam(RATE[kind]), "categorical_crossentropy", metrics=["accuracy"])
    start = time.perf_counter()
    history = model.fit(x, y, batch_size=64, epochs=epochs, validation_data=test, verbose=verbose)
    return model, history, test, time.perf_counter() - start


def accuracy(model, test):
    x, y = test
    return float((model.predict(x, verbose=0).argmax(axis=1) == y.argmax(axis=1)).mean())


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["drawn", "course"], default="drawn", help="which images (drawn)")
    parser.add_argument("--model", choices=["course", "deeper"], default="course", help="which model (course)")
    parser.add_argument("--folder", default="datasets", help="where the course's files lie (datasets)")
    parser.add_argument("--seeds", type=int, default=1, help="trainings, each with its own seed (1)")
    parser.add_argument("--epochs", type=int, help="by default 100, or 40 for the deeper model")
    parser.add_argument("--output", type=pathlib.Path, help="folder for pictures")
    parser.add_argument("--quick", action="store_true", help="two epochs and few images, to see that it runs")
    given = parser.parse_args(arguments)
    reached, taken = [], []
    for seed in range(given.seeds):
        model, history, test, seconds = train(
            given.data, given.model, seed, 2 if given.quick else given.epochs, given.folder, given.quick,
            verbose="auto" if given.seeds == 1 else 0,
        )  # fmt: skip
        if seed == 0:
            model.summary()
        reached.append(accuracy(model, test))
        taken.append(seconds)
        print(f"seed {seed}: {reached[-1]:.3f} of {len(test[0])} images right, trained in {seconds:.1f} s")
    if given.seeds > 1:
        print(f"mean {np.mean(reached):.3f}, median {np.median(taken):.1f} s")
    if given.output:
        x, y = test
        viz.confusion_matrix(y, model.predict(x, verbose=0), path=given.output / "signs-confusion.png")
        viz.show_filters(model, path=given.output / "signs-filters.png")
        viz.show_feature_maps(model, x[0], path=given.output / "signs-feature-maps.png")
        viz.plot_history(history, path=given.output / "signs-history.png")
        viz.plot_model(model, given.output / "signs-model.svg")
    return float(np.mean(reached))


if __name__ == "__main__":
    main()
