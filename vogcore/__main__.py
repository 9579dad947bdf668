"""``python -m vogcore`` is the same as the command ``vogcore``."""

import sys

from vogcore.cli import main

sys.exit(main())
