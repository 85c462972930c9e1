"""A program that makes a file of every kind that is converted, in the frameworks themselves."""

from __future__ import annotations

MAKE_FILES = """
import sys, keras, tf_keras, numpy as np, tensorflow as tf
folder = sys.argv[1]
x = np.random.default_rng(0).normal(size=(5, 8, 8, 2)).astype("float32")

def save(k, name, *suffixes):
    k.utils.set_random_seed(0)
    i = k.Input((8, 8, 2))
    h = k.layers.ReLU()(k.layers.BatchNormalization()(k.layers.Conv2D(4, 3, use_bias=False)(i)))
    h = k.layers.GlobalAveragePooling2D()(k.layers.SeparableConv2D(6, 3)(h))
    model = k.Model(i, k.layers.Dense(3, activation="softmax")(h))
    for suffix in suffixes:
        model.save(f"{folder}/{name}{suffix}")
    np.save(f"{folder}/{name}.npy", model.predict(x, verbose=0))
    return model

save(keras, "keras3", ".keras", ".h5").export(f"{folder}/saved")
np.save(f"{folder}/saved.npy", np.load(f"{folder}/keras3.npy"))
save(tf_keras, "keras2", ".keras", ".hdf5")
i = keras.Input((8, 8, 2))
keras.Model(i, keras.layers.Lambda(lambda t: t * 2)(i)).save(f"{folder}/lambda.keras")

class Igamma(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)])
    def __call__(self, a):
        return tf.math.igamma(a, a)

module = Igamma()
tf.saved_model.save(module, f"{folder}/igamma", signatures=module.__call__)
np.save(f"{folder}/x.npy", x)
"""
