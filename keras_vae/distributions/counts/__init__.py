"""Log-probabilities of counts that stay accurate in float32 at large counts.

The textbook form x log m - m - log x! is a small difference of large numbers: at a million counts
each is 1e7, where float32 resolves one nat. Here a log-probability is its largest value over the
parameter less the deviance, two numbers of its own size:

    log Poisson(x; m)      = saturated(x) - deviance(x, m)
    log Binomial(x; n, p)  = saturated(x) + saturated(n - x) - saturated(n)
                             - deviance(x, n p) - deviance(n - x, n (1 - p))
    log Multinomial(x; p)  = sum saturated(x_k) - saturated(n) - sum deviance(x_k, n p_k)
    saturated(k)           = log Poisson(k; k) = k log k - k - log k!
    deviance(k, m)         = k log(k / m) + m - k, which is at least 0

Only the rounding of the result and of the parameter remains: with d the derivative by the
parameter, x - m or x - n p, the error is within 8 units in the last place of 1 + |log p| + |d| (1 +
|parameter|). Gradients are d itself.

The negative binomial and the beta-binomial distribution, of which these are limits, are written in
the same way, so that nothing cancels as the dispersion grows.

Source: Loader (2000), Fast and accurate computation of binomial probabilities.
"""

from keras_vae.distributions.counts.deviance import binomial_log_prob as binomial_log_prob
from keras_vae.distributions.counts.deviance import multinomial_log_prob as multinomial_log_prob
from keras_vae.distributions.counts.deviance import poisson_log_prob as poisson_log_prob
from keras_vae.distributions.counts.dispersed import (
    beta_binomial_log_prob as beta_binomial_log_prob,
)
from keras_vae.distributions.counts.dispersed import (
    negative_binomial_log_prob as negative_binomial_log_prob,
)
from keras_vae.distributions.counts.dispersed import zero_inflated_zero as zero_inflated_zero
