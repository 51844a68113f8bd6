"""SCVI of scvi-tools on the cells of a folder, in an environment that has scvi-tools.

    python benchmarks/peers/scvi_worker.py FOLDER

FOLDER holds `cells.npz` with the arrays train, held_out and test. For each of its models it writes
`NAME.npz`: log p(x | total) of each test cell by `get_marginal_ll`, and the weights if the model is
`plain`, without batch normalisation.
"""

import sys
import warnings
from pathlib import Path

import anndata
import numpy as np
import scvi
import torch

FAMILIES = ("poisson", "nb", "zinb")
LATENTS, WIDTH, DRAWS = 8, 64, 500
SETTINGS = {
    "plain": {"use_batch_norm": "none", "dropout_rate": 0.0},
    "default": {},
}
"""Arguments of the model; the others are its defaults."""


def trained(
    cells: anndata.AnnData, rows: list[np.ndarray], family: str, setting: str
) -> scvi.model.SCVI:
    """Trains a model until the bound on held-out cells stops rising."""
    scvi.settings.seed = 0
    options = {"n_latent": LATENTS, "n_hidden": WIDTH, **SETTINGS[setting]}
    model = scvi.model.SCVI(cells, gene_likelihood=family, **options)
    model.train(
        max_epochs=400,
        batch_size=64,
        accelerator="cpu",
        datasplitter_kwargs={"external_indexing": rows},
        plan_kwargs={"lr": 2e-3, "n_epochs_kl_warmup": None, "n_steps_kl_warmup": 1},
        early_stopping=True,
        early_stopping_monitor="elbo_validation",
        early_stopping_patience=15,
        check_val_every_n_epoch=1,
        enable_progress_bar=False,
        logger=None,
    )
    return model


def weights_of(model: scvi.model.SCVI) -> dict[str, np.ndarray]:
    """Returns the weights of encoder and decoder, kernels as [inputs, outputs]."""
    module, found = model.module, {}
    layers = {
        "encoder": module.z_encoder.encoder.fc_layers[0][0],
        "loc": module.z_encoder.mean_encoder,
        "variance": module.z_encoder.var_encoder,
        "decoder": module.decoder.px_decoder.fc_layers[0][0],
        "share": module.decoder.px_scale_decoder[0],
        "gate": module.decoder.px_dropout_decoder,
    }
    for name, layer in layers.items():
        found[f"{name}_kernel"] = layer.weight.detach().numpy().T
        found[f"{name}_bias"] = layer.bias.detach().numpy()
    return {**found, "log_dispersion": module.px_r.detach().numpy()}


def main() -> None:
    """Trains the models and writes what they say."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    with np.load(folder / "cells.npz") as file:
        parts = [file[name] for name in ("train", "held_out", "test")]
    cells = anndata.AnnData(np.concatenate(parts).astype(np.float32))
    cells.obs_names = [str(row) for row in range(cells.n_obs)]
    scvi.model.SCVI.setup_anndata(cells)
    rows = np.split(np.arange(cells.n_obs), np.cumsum([len(part) for part in parts])[:-1])
    for setting in SETTINGS:
        for family in FAMILIES:
            model = trained(cells, rows, family, setting)
            found = model.get_marginal_ll(
                indices=rows[2], n_mc_samples=DRAWS, return_mean=False, n_mc_samples_per_pass=50
            )
            weights = weights_of(model) if setting == "plain" else {}
            epochs = len(model.history["elbo_train"])
            values = {"log_p": found.numpy(), "epochs": epochs, "version": scvi.__version__}
            np.savez(folder / f"{setting}-{family}.npz", **values, **weights)
            print(setting, family, float(found.mean()), epochs, flush=True)


if __name__ == "__main__":
    main()
