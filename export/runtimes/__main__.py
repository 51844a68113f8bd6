"""`python -m export.runtimes` lists the runtimes; `install` installs the JavaScript packages."""

import sys

from export.runtimes import RUNTIMES, needs


def main() -> None:
    """Lists the runtimes, or installs the JavaScript packages.

    Raises:
        SystemExit: if the argument is unknown or the installation fails.
    """
    match sys.argv[1:]:
        case []:
            for runtime in RUNTIMES.values():
                print(runtime.missing() or f"{runtime.name}: {runtime.version()}")
        case ["install"]:
            if not needs.node_modules().exists():
                print("== node_modules: installing the pinned JavaScript packages (440 MB)")
            try:
                needs.install()
            except RuntimeError as error:
                raise SystemExit(f"The JavaScript packages were not installed: {error}") from None
        case other:
            raise SystemExit(f"Expected no argument or `install`; got {' '.join(other)}.")


if __name__ == "__main__":
    main()
