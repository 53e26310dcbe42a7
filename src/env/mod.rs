//! The one door to clock, disk and randomness.
