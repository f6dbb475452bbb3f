"""Many variations of one picture: masked or replaced, computed anew only where they differ."""
