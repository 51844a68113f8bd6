"""Counter-based noise: the same numbers from the same seed in every runtime.

Every draw is a pure function of a seed, computed with integer operations and with float operations
that IEEE 754 rounds exactly (addition, multiplication, division, square root). There is no random
op and no state, so the same graph gives the same bits in Keras, a SavedModel, ONNX Runtime and C.

The generator is Philox-4x32-10: ten rounds of a keyed bijection that turn a counter into four
32-bit words. Each row of a batch has its own seed and so its own generator:

    key     = (seed[:, 0], seed[:, 1])           as uint32
    counter = (block, index, stream, 0)          block = 0, 1, 2, ...
    words   = philox(counter, key)               word i is word i % 4 of block i // 4

The index is 0; a model with several latents or parts numbers them by it. Draws of different
streams or indices never share a counter, so they are independent for one seed:

| stream | name                  | drawn from it                                            |
|--------|-----------------------|----------------------------------------------------------|
| 0      | `LATENT`              | z, from the prior                                        |
| 1      | `COMPONENT`           | the component of a mixture                               |
| 2      | `OBSERVATION`         | x given z                                                |
| 3      | `ROWS`                | the seeds of rows, when `row_seeds` is given a pair      |
| 4      | `PREPARATION`         | binarisation and dequantisation of x, in exported scores |
| 5      | `POSTERIOR`           | z given x                                                |
| 6      | `RESAMPLING`          | which of the weighted draws of z an imputation uses      |
| 7      | `POSTERIOR_COMPONENT` | the component of a mixture that z given x is drawn from  |
| 8-13   | `IMPUTED` + s         | what stream s holds, of entries that are imputed         |
| 14-15  |                       | reserved                                                 |
| 16-    |                       | free for other programs, up to 65535                     |

The prior and the posterior have separate streams. With a shared one, an x drawn with the same seed
would meet the very noise in z given x that made it, and `elbo(sample(n, seed=s), seed=s)` would
lie above log p(x). Earlier versions drew z given x from stream 0; the manifest of an artifact names
the stream of each draw.

The second half of the package turns uniforms into draws from distributions by inversion.

Sources: Salmon, Moraes, Dror, Shaw (2011), Parallel random numbers: as easy as 1, 2, 3, SC '11.
Box, Muller (1958), A note on the generation of random normal deviates. Loader (2000), Fast and
accurate computation of binomial probabilities.
"""

from keras_vae.random.inversion import *  # noqa: F403
from keras_vae.random.inversion.counts import splits as splits
from keras_vae.random.noise import Request as Request
from keras_vae.random.noise import bits as bits
from keras_vae.random.noise import normal as normal
from keras_vae.random.noise import several as several
from keras_vae.random.noise import uniform as uniform
from keras_vae.random.philox import COMPONENT as COMPONENT
from keras_vae.random.philox import IMPUTED as IMPUTED
from keras_vae.random.philox import LATENT as LATENT
from keras_vae.random.philox import OBSERVATION as OBSERVATION
from keras_vae.random.philox import POSTERIOR as POSTERIOR
from keras_vae.random.philox import POSTERIOR_COMPONENT as POSTERIOR_COMPONENT
from keras_vae.random.philox import PREPARATION as PREPARATION
from keras_vae.random.philox import RESAMPLING as RESAMPLING
from keras_vae.random.philox import ROWS as ROWS
from keras_vae.random.philox import int32_arithmetic as int32_arithmetic
from keras_vae.random.seeds import as_seed as as_seed
from keras_vae.random.seeds import fresh_seed as fresh_seed
from keras_vae.random.seeds import row_seeds as row_seeds
from keras_vae.random.seeds import stateless_seed as stateless_seed
