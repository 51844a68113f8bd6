"""Entry point of `python -m keras_vae`."""

from keras_vae.cli import main

if __name__ == "__main__":
    main()
