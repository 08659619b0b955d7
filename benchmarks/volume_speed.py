"""How long a network takes for one patch of a volume: FocalUNet in each engine, and others.

    python benchmarks/volume_speed.py                           # micro, 64 x 64 x 64, one channel
    python benchmarks/volume_speed.py --preset nano --side 96   # what a plan takes on a CPU

As network_speed.py, which see, in three dimensions: MONAI's 3-D networks, and a 3-D U-Net in Keras
of half the widths.
"""

import sys

from network_speed import main

if __name__ == "__main__":
    main(
        sys.argv[1:],
        __file__,
        __doc__,
        "Speed of the network, volumes",
        {"ndim": 3, "preset": "micro", "side": 64, "rounds": 3, "channels": 1, "classes": 3},
    )
