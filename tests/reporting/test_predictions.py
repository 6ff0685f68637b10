"""A confusion matrix counts each answer once and can be read for two classes and for a thousand."""

import csv
import io

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix

from resnet_jax.reporting import predictions

LABELS = np.array([0, 0, 0, 1, 1, 2])
ANSWERS = np.array([0, 2, 2, 1, 0, 2])
NAMES = ("ash", "beech", "cedar, of Lebanon")


def test_rows_are_true_classes_and_columns_are_answers():
    counts = confusion_matrix(LABELS, ANSWERS, labels=range(3))
    np.testing.assert_array_equal(counts, [[1, 0, 2], [1, 1, 0], [0, 0, 1]])


def test_table_reads_back():
    counts = confusion_matrix(LABELS, ANSWERS, labels=range(3))
    header, *rows = csv.reader(io.StringIO(predictions.to_csv(counts, NAMES)))
    assert header == ["true class", *NAMES]
    assert [row[0] for row in rows] == list(NAMES)
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], int), counts)


def test_name_of_a_class_is_no_formula():
    assert "\n=1+1" not in predictions.to_csv(np.zeros((1, 1), int), ["=1+1"])


def test_most_frequent_mistakes_come_first_and_right_answers_are_none():
    counts = confusion_matrix(LABELS, ANSWERS, labels=range(3))
    assert predictions.most_confused(counts) == [(0, 2, 2), (1, 0, 1)]
    assert predictions.most_confused(np.diag([3, 4])) == []


@pytest.mark.parametrize("num_classes", [2, 10, 100, 1000])
def test_picture_is_drawn_and_has_no_empty_look(num_classes):
    draw = np.random.default_rng(0)
    labels = draw.integers(0, num_classes, 20 * num_classes)
    answers = np.where(draw.random(len(labels)) < 0.7, labels, draw.integers(0, num_classes))
    counts = confusion_matrix(labels, answers, labels=range(num_classes))
    names = [f"class {i}" for i in range(num_classes)]
    picture = Image.open(
        io.BytesIO(predictions.draw_confusion(counts, names, "resnet-20, test split"))
    )
    width, height = picture.size
    assert 600 <= height <= 2400
    assert width <= 3200
    # The diagonal is dark, and the paper is not.
    grey = np.asarray(picture.convert("L"))
    assert (grey < 110).sum() > num_classes
    assert (grey > 240).mean() > 0.3


def test_class_without_examples_does_not_divide_by_zero():
    counts = confusion_matrix(np.array([0]), np.array([1]), labels=range(3))
    with np.errstate(all="raise"):
        picture = predictions.draw_confusion(counts, NAMES, "")
    assert Image.open(io.BytesIO(picture)).width > 0
