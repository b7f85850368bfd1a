"""How fast the phantom is drawn, scanner physics included: `scripts/bench phantom [--size 64] [--patients 334]`."""

import argparse
import time

from common.config import load_run_config
from common.data.phantom import images_per_second


def main() -> None:
    """Draw it three times and print one line each: wall time and processor time on one thread."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--patients", type=int, default=334)
    chosen = parser.parse_args()
    changes = {"data.image-size": chosen.size, "data.patients-per-site": chosen.patients}
    settings = load_run_config(changes).data
    for _ in range(3):
        start = time.process_time()
        count, rate = images_per_second(settings)
        cpu = time.process_time() - start
        print(f"{count} images of {chosen.size}²: {count / rate:.2f} s, {rate:.0f} images/s, {cpu:.2f} CPU-seconds")


if __name__ == "__main__":
    main()
