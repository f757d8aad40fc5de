"""`python -m neurogym_v.cli` is `neurogym-v`."""

import sys

from neurogym_v.cli import main

sys.exit(main())
