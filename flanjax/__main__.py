"""`python -m flanjax`, the same as the `flanjax` command."""

import sys

from flanjax.cli import main

sys.exit(main())
