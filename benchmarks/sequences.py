"""Posterior collapse of an autoregressive VAE of text, and what cures it.

    python benchmarks/sequences.py | tee benchmarks/results/sequences.txt
    python benchmarks/sequences.py --write DIRECTORY

The second command only writes the corpus, train.txt and test.txt, for recipes/sentences.toml.

The corpus is generated: sentences of a small grammar, 1500 for training and 500 for the test, whose
subject, object and adverb belong to one of eight scenes. Tokens are words, and a sentence ends with
a token of its own. The entropy of the grammar is 8.534 nats a sentence, log 32 + log 5 + log 2 +
log 4 + H(0.7) + 0.7 log 3, so no ELBO is above -8.534 on average. The model is `sequence_vae` with
8 latents and recurrent layers of width 48, Adam 3e-3, batches of 50, one seed. Every row has the
same architecture and number of epochs.

All columns are of test sentences. "rate" and "ELBO" are nats per sentence. "nats a token" is -ELBO
divided by the tokens, "perplexity" is its exponential, an upper bound on that of the model.
"copied" is the share of words that the greedy decoding of the posterior mean gets right.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np

import keras_vae
from keras_vae import callbacks
from keras_vae.data import Vocabulary, lengths

LATENTS, WIDTH, BATCH, DRAWS = 8, 48, 50, 5

SUBJECTS = [f"{kind}{k}" for kind in ("cat", "king", "ship", "cook") for k in range(8)]
VERBS = ("sees", "likes", "finds", "paints", "follows")
ADVERBS = [f"{word}{k}" for word in ("today", "often", "slowly") for k in range(8)]


def corpus(count: int, seed: int) -> list[str]:
    """Generates sentences; subject, object and adverb are of the same scene."""
    rng = np.random.default_rng(seed)
    found = []
    for scene in rng.integers(0, 8, count):
        subject, target = (SUBJECTS[8 * rng.integers(0, 4) + scene] for _ in range(2))
        words = ["the", subject, str(rng.choice(VERBS)), "the"]
        words += ["small"] if rng.random() < 0.5 else []
        words += [target]
        words += [ADVERBS[8 * rng.integers(0, 3) + scene]] if rng.random() < 0.7 else []
        found.append(" ".join(words))
    return found


ROWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "free bits, 0.5 a latent": {"free_bits": 0.5},
    "beta from 0 to 1 over 25 epochs, free bits": {"warmup": 25, "free_bits": 0.5},
    "the same, and word dropout 0.6": {"warmup": 25, "free_bits": 0.5, "word_dropout": 0.6},
}
"""Settings by the name of the row."""


def trained(shape: tuple[int, int], x: np.ndarray, epochs: int, row: dict[str, Any]) -> Any:
    """Trains the model of a row."""
    keras.utils.set_random_seed(0)
    vae = keras_vae.sequence_vae(
        shape,
        LATENTS,
        "categorical",
        width=WIDTH,
        depth=1,
        autoregressive=True,
        word_dropout=row.get("word_dropout", 0.0),
    )
    free_bits = row.get("free_bits", 0.0)
    vae.compile(keras.optimizers.Adam(3e-3), keras_vae.ELBO(free_bits=free_bits))
    rising = []
    if "warmup" in row:
        rising = [callbacks.LinearSchedule("beta", epochs=row["warmup"])]
    vae.fit(x, batch_size=BATCH, epochs=epochs, verbose=0, callbacks=rising)
    return vae


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--write", type=Path, help="Directory for the corpus; then stop.")
    arguments = parser.parse_args()
    texts, tests = corpus(1500, 0), corpus(500, 1)
    if arguments.write is not None:
        arguments.write.mkdir(parents=True, exist_ok=True)
        for name, sentences in (("train", texts), ("test", tests)):
            (arguments.write / f"{name}.txt").write_text("\n".join(sentences) + "\n")
        return
    vocabulary = Vocabulary.of(texts, "words")
    x = vocabulary.one_hot(texts, 9)
    test = vocabulary.one_hot(tests, 9)
    counts = lengths(test)
    print(f"{len(vocabulary)} tokens, {counts.mean():.2f} a sentence, {arguments.epochs} epochs\n")
    print("| training | rate | ELBO | nats a token | perplexity | copied | s |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for name, row in ROWS.items():
        start = time.perf_counter()
        vae = trained(x.shape[1:], x, arguments.epochs, row)
        seconds = time.perf_counter() - start
        bound = vae.elbo(test, num_samples=DRAWS, seed=0)
        per_token = -np.sum(bound.elbo) / counts.sum()
        present = ~np.isnan(test).any(-1)
        copied = np.argmax(vae.reconstruct(test), -1) == np.nan_to_num(test).argmax(-1)
        print(
            f"| {name} | {np.mean(bound.rate):.2f} | {np.mean(bound.elbo):.2f} | {per_token:.3f} | "
            f"{np.exp(per_token):.2f} | {copied[present].mean():.1%} | {seconds:.0f} |",
            flush=True,
        )
    print("\nThree draws of the last model:")
    for text in vocabulary.texts(vae.sample(3, seed=0)):
        print(f"- {text}")


if __name__ == "__main__":
    main()
