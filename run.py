"""Run one experiment: `python run.py dataset=imdb model=lstm reg=dropattack`. See `--help`."""

import hydra
from omegaconf import DictConfig

from dropattack.runs import cli


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config: DictConfig) -> None:
    cli.execute(config)


if __name__ == "__main__":
    raise SystemExit(cli.main(main))
