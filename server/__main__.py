"""`python -m server`: the same as the command `merlin-graphql`."""

import sys

from server.entry_point import main

sys.exit(main())
