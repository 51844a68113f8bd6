"""Schema: what the columns of a table hold, inferred, printed, edited and applied."""

from keras_vae.data.schema.column import Column as Column
from keras_vae.data.schema.schema import Schema as Schema
