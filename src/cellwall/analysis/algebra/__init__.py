"""What rules match as sets, exactly and for every fleet: the atoms of a policy's universe, and boxes of them."""
