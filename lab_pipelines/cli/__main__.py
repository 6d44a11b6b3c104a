"""`python -m lab_pipelines.cli` is `labs` where the project isn't installed, as in the container image."""

from lab_pipelines.cli.app import main

if __name__ == "__main__":
    main()
