import sys

from server.entry_point import main

sys.exit(main())
