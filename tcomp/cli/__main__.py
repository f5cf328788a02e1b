"""python -m tcomp.cli"""

from . import main

main()
