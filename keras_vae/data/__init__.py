"""Data: reads files into arrays, and turns arrays into a reproducible stream of batches.

`load` reads a file or a directory, and `split` sets a test part aside. `batches` turns an array
into the `tf.data.Dataset` that `fit`, `evaluate` and `predict` take. `binarize` and `dequantize`
are random steps that it can apply to each batch.
    train, test = split(load("digits").x)
    vae.fit(
        batches(train, 100, epochs=20, seed=1, rescale=1 / 16, transform=binarize),
        steps_per_epoch=steps(len(train), 100),
        epochs=20,
        shuffle=False,
        validation_data=batches(test, 100, shuffle=False, rescale=1 / 16, transform=binarize),
    )

Data that does not fit into memory stays in its file. A .npy array is mapped. A Parquet table or a
directory of images is written to such a file once, in a directory of your choice:

    vae.fit(load("big.parquet", cache="cache").x, batch_size=100)

Rows are read from the file while earlier batches are trained on. Order, batches and losses are
those of the same array in memory, and so is the speed if the disk keeps up.

The stream is already shuffled; `shuffle=False` keeps Keras from warning that it cannot shuffle it.
"""

from keras_vae.data.cells import Cells as Cells
from keras_vae.data.cells import from_anndata as from_anndata
from keras_vae.data.content import DataError as DataError
from keras_vae.data.files import Data as Data
from keras_vae.data.files import load as load
from keras_vae.data.schema import Column as Column
from keras_vae.data.schema import Schema as Schema
from keras_vae.data.sequences import lengths as lengths
from keras_vae.data.sequences import padded as padded
from keras_vae.data.sequences import windows as windows
from keras_vae.data.stream import batches as batches
from keras_vae.data.stream import split as split
from keras_vae.data.stream import steps as steps
from keras_vae.data.tables import load_frame as load_frame
from keras_vae.data.text import Vocabulary as Vocabulary
from keras_vae.data.transforms import binarize as binarize
from keras_vae.data.transforms import dequantize as dequantize
