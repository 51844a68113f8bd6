"""Three draws from an exported model, as in `python sample.py artifacts/quickstart/1 7`.

Needs numpy and onnxruntime only. The same seed gives the same draws in every runtime.
"""

import sys

import numpy as np
import onnxruntime


def main(artifact: str, seed: int) -> None:
    """Prints a draw a line; row i of the batch has the seed pair (seed, i)."""
    session = onnxruntime.InferenceSession(f"{artifact}/onnx/sample.onnx")
    seeds = np.array([[seed, 0], [seed, 1], [seed, 2]], np.int32)
    (draws,) = session.run(["sample"], {"seed": seeds})
    for draw in draws.reshape(len(seeds), -1):
        print(" ".join(f"{number:.4f}" for number in draw))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
