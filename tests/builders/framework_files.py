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

MAKE_AWKWARD = """
import sys, keras, tf_keras, numpy as np
folder = sys.argv[1]
x = np.random.default_rng(0).normal(size=(5, 10, 4)).astype("float32")
np.save(f"{folder}/x.npy", x)

def save(k, name, shape, *layers, dtype=None):
    k.utils.set_random_seed(0)
    model = k.Sequential([k.Input(shape, dtype=dtype), *layers])
    model.save(f"{folder}/{name}.keras")
    if dtype is None:
        np.save(f"{folder}/{name}.npy", np.float32(model.predict(x, verbose=0)))
    return model

save(keras, "lstm", (10, 4), keras.layers.LSTM(8), keras.layers.Dense(3)).export(f"{folder}/lstm")
save(tf_keras, "gru2", (10, 4), tf_keras.layers.GRU(8), tf_keras.layers.Dense(3))
for k, name in ((keras, "mixed3"), (tf_keras, "mixed2")):
    k.mixed_precision.set_global_policy("mixed_float16")
    save(k, name, (10, 4), k.layers.Conv1D(8, 3, activation="relu"), k.layers.Flatten(), k.layers.Dense(3))
    k.mixed_precision.set_global_policy("float32")

class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x

class Thrice(tf_keras.layers.Layer):
    def call(self, x):
        return 3 * x

save(keras, "twice", (10, 4), Twice(), keras.layers.Flatten(), keras.layers.Dense(3)).export(f"{folder}/twice")
model = save(tf_keras, "thrice", (10, 4), Thrice(), tf_keras.layers.Flatten(), tf_keras.layers.Dense(3))
model.export(f"{folder}/thrice")
tokens = keras.layers.TextVectorization(max_tokens=20, output_sequence_length=6)
tokens.adapt(["a b c", "d e f"])
behind = [keras.layers.Embedding(20, 4), keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(2)]
save(keras, "text", (1,), tokens, *behind, dtype="string")
save(keras, "ids", (6,), *behind, dtype="int32").save(f"{folder}/ids.keras")
"""
