"""Variations of training samples: against slow references, drawn per step, and never on held-out samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.errors import AutocompressError
from autocompress.finetune import losses
from autocompress.finetune.augment import check_augments, varied
from autocompress.finetune.batches import Batches
from autocompress.finetune.networks import Teacher
from autocompress.finetune.recipe import Lesson, Recipe
from autocompress.metrics import get_metric
from autocompress.network.tflite import flatbuffer
from autocompress.network.tflite.graph import graph_of
from autocompress.tasks import digits, load_task
from tests.builders.arrays import Array
from tests.builders.optional import present

SEEDS = st.integers(0, 2**32 - 1)


def images(samples: int, height: int, width: int, seed: int) -> Array:
    return np.random.default_rng(seed).random((samples, height, width, 2)).astype(np.float32)


def drawn(x: Sequence[Array], *augments: str, seed: int = 0) -> list[Array]:
    before = [values.copy() for values in x]
    found, labels = varied(x, np.zeros(len(x[0])), augments, np.random.default_rng(seed))
    assert not labels.any()
    for values, kept in zip(x, before, strict=True):
        np.testing.assert_array_equal(values, kept)  # the training data stay
    return found


@given(seed=SEEDS)
def test_mirrored_images_are_themselves_or_their_mirror_image_in_all_inputs(seed: int) -> None:
    x = [images(20, 3, 5, seed), images(20, 4, 2, seed + 1), np.arange(20.0, dtype=np.float32)[:, None]]
    first, second, plain = drawn(x, "mirror", seed=seed)
    flipped = [(found == given[:, :, ::-1]).all((1, 2, 3)) for found, given in ((first, x[0]), (second, x[1]))]
    kept = [(found == given).all((1, 2, 3)) for found, given in ((first, x[0]), (second, x[1]))]
    assert (flipped[0] ^ kept[0]).all()
    np.testing.assert_array_equal(flipped[0], flipped[1])
    assert 0 < flipped[0].sum() < 20
    np.testing.assert_array_equal(plain, x[2])


def moved(image: Array, down: int, right: int) -> Array:
    """The slow way: every pixel from where it was, those from outside from the edge."""
    height, width, _ = image.shape
    found = np.empty_like(image)
    for y in range(height):
        for x in range(width):
            found[y, x] = image[min(max(y - down, 0), height - 1), min(max(x - right, 0), width - 1)]
    return found


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, height=st.integers(2, 34), width=st.integers(2, 34))
def test_shifted_images_are_moved_by_at_most_a_sixteenth_of_a_side(seed: int, height: int, width: int) -> None:
    given_images = images(6, height, width, seed)
    (found,) = drawn([given_images], "shift", seed=seed)
    most = [max(1, side // 16) for side in (height, width)]
    steps = [(down, right) for down in range(-most[0], most[0] + 1) for right in range(-most[1], most[1] + 1)]
    for before, after in zip(given_images, found, strict=True):
        assert any(np.array_equal(moved(before, *step), after) for step in steps)


def test_all_shifts_come_up() -> None:
    marked = np.zeros((400, 9, 9, 1), np.float32)
    marked[:, 4, 4] = 1
    (found,) = drawn([marked], "shift")
    assert {tuple(place) for place in np.argwhere(found)[:, 1:3].tolist()} == {
        (y, x) for y in (3, 4, 5) for x in (3, 4, 5)
    }


@given(seed=SEEDS, samples=st.integers(1, 12))
def test_a_mixture_lies_between_two_samples_in_all_inputs_alike(seed: int, samples: int) -> None:
    # Rows of a unit matrix: what a mixture is made of can be read off.
    rows = np.eye(samples, dtype=np.float32)
    (first, second), labels = varied([rows, 10 * rows[:, None]], rows, ["mix"], np.random.default_rng(seed))
    np.testing.assert_array_equal(labels, first)
    np.testing.assert_allclose(first.sum(1), 1, rtol=1e-6)
    assert (first >= 0).all()
    assert ((first > 0).sum(1) <= 2).all()
    np.testing.assert_allclose(second[:, 0], 10 * first, rtol=1e-6)
    assert first.dtype == second.dtype == np.float32


@pytest.mark.parametrize(
    ("augments", "shape", "dtype", "message"),
    [
        (("mirorr",), (2, 3, 3, 1), np.float32, "unknown variation 'mirorr'; did you mean 'mirror'"),
        (("mirror",), (2, 9), np.float32, "no input has the shape .n, height, width, channels.; use --augment mix"),
        (("shift", "mix"), (2, 9), np.float32, "are for images"),
        (("mix",), (2, 9), np.int32, "needs inputs that are floats"),
    ],
)
def test_what_does_not_fit_is_said(
    augments: tuple[str, ...], shape: tuple[int, ...], dtype: type, message: str
) -> None:
    with pytest.raises(AutocompressError, match=message):
        check_augments(augments, [np.zeros(shape, dtype)])


def test_shares_of_classes_and_classes_cost_the_same() -> None:
    head = losses.Head(tensor=0, kind="classes")
    loss = losses.loss_of(head, Recipe(loss="labels"), get_metric("accuracy"))
    outputs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    classes = np.array([0, 2, 1, 1, 0])
    given = loss(tf.constant(outputs), None, tf.constant(classes)).numpy()
    np.testing.assert_allclose(
        loss(tf.constant(outputs), None, tf.constant(np.eye(3, dtype=np.float32)[classes])), given, rtol=1e-6
    )
    thirds = np.full((5, 3), 1 / 3, np.float32)
    logs = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
    np.testing.assert_allclose(loss(tf.constant(outputs), None, tf.constant(thirds)), -logs.mean(1), rtol=1e-5)


def test_a_step_has_variations_of_its_own_and_the_teachers_word_on_them() -> None:
    inputs, y = present(load_task("digits").train)()
    ((name, x),) = inputs.items()
    tree = flatbuffer.read(flatbuffer.normalise(digits.NETWORK.read_bytes()))
    teacher = Teacher(graph_of(tree), [int(tree.subgraphs[0].outputs[0])], [x], 64)
    recipe = Recipe(augment=("mirror", "shift", "mix"), epochs=3)
    lesson = Lesson(x={name: x}, y=y)
    plain, batches = (Batches(lesson, teacher, r, 32, classes=10) for r in (Recipe(), recipe))
    (first,), taught, shares = batches.at_step(0)
    (again,), _, _ = batches.at_step(batches.steps_an_epoch)
    (untouched,), _, labels = plain.at_step(0)
    assert first.shape == untouched.shape
    assert not np.array_equal(first, untouched)
    assert not np.array_equal(first, again)
    np.testing.assert_array_equal(batches.at_step(0)[0][0], first)  # a training that goes on sees the same
    np.testing.assert_allclose(taught, teacher.outputs([first]), atol=1e-6)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=1e-6)
    assert (shares[np.arange(32), labels] > 0).all()
    held_out = [np.concatenate([inputs[0] for inputs, *_ in each.held_out()]) for each in (plain, batches)]
    np.testing.assert_array_equal(held_out[0], held_out[1])
    np.testing.assert_array_equal(held_out[0], x[-len(held_out[0]) :])
