"""What each command of `memedit` does: parse, call, print. The decisions are made in the packages they call."""
