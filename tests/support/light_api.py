"""`python -m api`, on a clock that a test sets."""

from api.__main__ import main
from tests.support import shifted_clock

if __name__ == "__main__":
    shifted_clock.install()
    main()
