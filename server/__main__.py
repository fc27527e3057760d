import sys

from server.neighbours import main

sys.exit(main())
